//! What is known of a database's pages: a hash of each, and one hash of the whole.
//!
//! The hash of a page says whether an old image is the one on record, so that nothing is ever compressed
//! against bytes that the reader will not have. The hash of the whole is the sum of its pages' hashes, so a
//! change of ten pages costs ten hashes, and every segment can end in the state that it leads to.

/// The hash of a page or of a whole database.
pub type Hash = u128;

/// The largest page that is worth a copy to be hashed; larger ones are fast as they are.
const JOINED: usize = 8192;

/// The hash of page `pgno` with this content.
pub fn page_hash(pgno: u32, page: &[u8]) -> Hash {
    let mut joined = [0; 4 + JOINED];
    let digest = match joined.get_mut(..4 + page.len()) {
        // In one piece its chunks are hashed side by side, and not one after the other.
        Some(joined) => {
            joined[..4].copy_from_slice(&pgno.to_be_bytes());
            joined[4..].copy_from_slice(page);
            blake3::hash(joined)
        }
        None => blake3::Hasher::new().update(&pgno.to_be_bytes()).update(page).finalize(),
    };
    let mut first = [0; 16];
    first.copy_from_slice(&digest.as_bytes()[..16]);
    u128::from_be_bytes(first)
}

/// The page that SQLite keeps its locks in and never reads or writes.
pub fn lock_page(page_size: u32) -> u32 {
    0x4000_0000 / page_size + 1
}

/// What is on record of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Its hash.
    pub hash: Hash,
    /// The position that last changed it.
    pub changed: u64,
}

/// What is on record of all pages.
#[derive(Debug, Clone, Default)]
pub struct PageMap {
    pages: Vec<Page>,
    sum: Hash,
}

impl PageMap {
    /// A map of pages 1, 2, 3…
    pub fn new(pages: Vec<Page>) -> Self {
        let sum = pages.iter().fold(0u128, |sum, page| sum.wrapping_add(page.hash));
        Self { pages, sum }
    }

    /// How many pages there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.pages.len()).unwrap_or(u32::MAX)
    }

    /// The hash of the whole.
    pub fn state(&self) -> Hash {
        self.sum
    }

    /// What is on record of a page.
    pub fn get(&self, pgno: u32) -> Option<Page> {
        self.pages.get((pgno as usize).checked_sub(1)?).copied()
    }

    /// The hash on record of a page.
    pub fn hash(&self, pgno: u32) -> Option<Hash> {
        self.get(pgno).map(|page| page.hash)
    }

    /// Cuts or extends the map; new pages have the hash 0 until they are set.
    pub fn resize(&mut self, count: u32) {
        for page in self.pages.iter().skip(count as usize) {
            self.sum = self.sum.wrapping_sub(page.hash);
        }
        self.pages.resize(count as usize, Page { hash: 0, changed: 0 });
    }

    /// Records a page. One beyond the count is ignored.
    pub fn set(&mut self, pgno: u32, page: Page) {
        let Some(slot) = (pgno as usize).checked_sub(1).and_then(|i| self.pages.get_mut(i)) else { return };
        self.sum = self.sum.wrapping_sub(slot.hash).wrapping_add(page.hash);
        *slot = page;
    }

    /// The state after `changes` in a database of `count` pages.
    pub fn state_after(&self, count: u32, changes: &[(u32, Hash)]) -> Hash {
        let mut sum = self.sum;
        for page in self.pages.iter().skip(count as usize) {
            sum = sum.wrapping_sub(page.hash);
        }
        for (pgno, hash) in changes.iter().filter(|(pgno, _)| *pgno <= count) {
            sum = sum.wrapping_sub(self.hash(*pgno).unwrap_or(0)).wrapping_add(*hash);
        }
        sum
    }

    /// The pages that changed after position `seq`, in order, with their hashes.
    pub fn changed_since(&self, seq: u64) -> Vec<(u32, Hash)> {
        let numbered = self.pages.iter().zip(1u32..);
        numbered.filter(|(page, _)| page.changed > seq).map(|(page, pgno)| (pgno, page.hash)).collect()
    }

    /// All pages with their hashes.
    pub fn all(&self) -> Vec<(u32, Hash)> {
        self.pages.iter().zip(1u32..).map(|(page, pgno)| (pgno, page.hash)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_follows_every_change() {
        let mut map = PageMap::default();
        map.resize(3);
        for pgno in 1..=3 {
            map.set(pgno, Page { hash: u128::MAX - u128::from(pgno), changed: 1 });
        }
        let changes = [(2, 7), (4, 9)];
        let predicted = map.state_after(4, &changes);
        map.resize(4);
        changes.iter().for_each(|&(pgno, hash)| map.set(pgno, Page { hash, changed: 2 }));
        assert_eq!(map.state(), predicted);
        assert_eq!(PageMap::new(map.pages.clone()).state(), predicted);
        assert_eq!(map.changed_since(1), changes);
        let cut = map.state_after(1, &[(2, 1)]);
        map.resize(1);
        assert_eq!(map.state(), cut);
    }

    #[test]
    fn a_page_elsewhere_is_another_page() {
        assert_ne!(page_hash(1, &[0; 512]), page_hash(2, &[0; 512]));
        assert_eq!(lock_page(4096), 262_145);
    }
}
