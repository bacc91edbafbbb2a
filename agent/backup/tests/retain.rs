//! Retention on chains that were lived through, day by day: what must stay reachable stays so, whatever part
//! of a plan is carried out.

#![expect(
    clippy::unwrap_used,
    reason = "a test that may panic, in functions that clippy does not take for tests"
)]

use std::{collections::BTreeSet, sync::Mutex};

use bytes::Bytes;
use flipside_backup::{
    chain::{Catalog, ChainId, Header, Name, Object, SNAPSHOT},
    retain::{Policy, PruneError, PrunePlan, apply, plan},
    store::{Fake, Fault, Store as _},
};
use proptest::prelude::*;

const CHAIN: ChainId = ChainId([7; 16]);
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 2027-01-01T00:00Z.
const START: i64 = 1_798_761_600_000;

/// A writer that commits every `step` and cuts its levels at five minutes, hours and days.
struct Writer {
    catalog: Catalog,
    now: i64,
    seq: u64,
    ends: [u64; 3],
}

impl Writer {
    fn new() -> Self {
        let catalog = Catalog {
            chain: CHAIN,
            objects: Vec::new(),
            orphans: Vec::new(),
            epochs: Vec::new(),
            head: true,
            strangers: Vec::new(),
        };
        let mut writer = Self { catalog, now: START, seq: 1, ends: [1; 3] };
        writer.add(SNAPSHOT, 0, 1);
        writer
    }

    fn add(&mut self, level: u8, from: u64, to: u64) {
        let name = Name { level, from, to, part: 0 };
        let object = Object {
            name,
            bytes: 140 + u64::from(level),
            keys: vec![name.key(CHAIN)],
            modified_ms: Some(self.now),
        };
        self.catalog.objects.push(object);
    }

    fn live(&mut self, span: i64, step: i64) {
        for _ in 0..span / step {
            self.now += step;
            self.seq += 1;
            self.add(0, self.seq - 1, self.seq);
            for (level, every) in [(1, 5 * MINUTE), (2, HOUR)] {
                if self.now % every < step {
                    let from = std::mem::replace(&mut self.ends[usize::from(level)], self.seq);
                    self.add(level, from, self.seq);
                }
            }
            if self.now % DAY < step {
                self.add(SNAPSHOT, 0, self.seq);
            }
        }
    }

    fn prune(&mut self) -> PrunePlan {
        let made = plan(&self.catalog, self.now, &Policy::default()).unwrap();
        let gone: BTreeSet<Name> = made.remove.iter().map(|o| o.name).collect();
        self.catalog.objects.retain(|o| !gone.contains(&o.name));
        made
    }
}

/// All positions that can be restored, by trying every object until nothing new comes: unlike the code.
fn reachable(objects: &[Object]) -> BTreeSet<u64> {
    let mut reached: BTreeSet<u64> = BTreeSet::new();
    loop {
        let before = reached.len();
        for Name { level, from, to, .. } in objects.iter().map(|o| o.name) {
            if level == SNAPSHOT || reached.contains(&from) {
                reached.insert(to);
            }
        }
        if reached.len() == before {
            return reached;
        }
    }
}

/// The moments of the reachable positions.
fn times(writer: &Writer) -> Vec<i64> {
    let reached = reachable(&writer.catalog.objects);
    // One minute a position.
    reached.iter().map(|&seq| START + i64::try_from(seq - 1).unwrap() * MINUTE).collect()
}

#[test]
fn seventy_days_of_daily_pruning_keep_what_the_policy_says_and_no_more() {
    let mut writer = Writer::new();
    for _ in 0..70 {
        writer.live(DAY, MINUTE);
        writer.prune();
    }
    let times = times(&writer);
    let since = |age: i64| writer.now - age;
    let in_day: Vec<_> = times.iter().filter(|&&t| t > since(DAY)).collect();
    assert_eq!(in_day.len(), 1440, "every position of the last day");
    for hour in 1..7 * 24 {
        let (from, to) = (since(hour * HOUR), since((hour - 1) * HOUR));
        assert!(times.iter().any(|&t| from < t && t <= to), "hour {hour}");
    }
    for day in 1..30 {
        assert!(times.iter().any(|&t| since(day * DAY) < t && t <= since((day - 1) * DAY)), "day {day}");
    }
    assert!(times.iter().any(|&t| t < since(31 * DAY)), "January has a last position");
    // A day of everything, a week of hours, the days' snapshots and one more for each month.
    let count = |level| writer.catalog.level(level).count();
    assert!(
        count(0) <= 1500 && count(1) <= 320 && count(2) <= 7 * 24 + 26,
        "{} {} {}",
        count(0),
        count(1),
        count(2)
    );
    assert!((30..=34).contains(&count(SNAPSHOT)), "{}", count(SNAPSHOT));
    assert!(writer.prune().remove.is_empty(), "what was pruned needs no pruning");
}

#[test]
fn a_clock_that_jumps_and_a_database_that_rests_lose_nothing_more() {
    let mut writer = Writer::new();
    writer.live(3 * DAY, MINUTE);
    let names = |plan: &PrunePlan| plan.remove.iter().map(|o| o.name).collect::<Vec<_>>();
    let now = plan(&writer.catalog, writer.now, &Policy::default()).unwrap();
    let much_later = plan(&writer.catalog, writer.now + 4000 * DAY, &Policy::default()).unwrap();
    assert_eq!(names(&now), names(&much_later));
    assert!(!now.remove.is_empty());
    let before = plan(&writer.catalog, START - 4000 * DAY, &Policy::default()).unwrap();
    assert!(before.remove.is_empty());
}

#[test]
fn a_chain_with_a_hole_before_its_end_is_left_alone() {
    let mut writer = Writer::new();
    writer.live(DAY / 2, MINUTE);
    let last = writer.seq;
    writer.catalog.objects.retain(|o| o.name.to != last);
    writer.add(0, last, last + 1);
    let error = plan(&writer.catalog, writer.now, &Policy::default()).unwrap_err();
    assert!(matches!(error, PruneError::Broken { seq, .. } if seq == last + 1), "{error}");
    assert!(error.to_string().contains("nothing is removed"));
}

#[test]
fn what_stands_behind_a_hole_is_kept_for_a_year() {
    let mut writer = Writer::new();
    writer.live(DAY, MINUTE);
    writer.catalog.objects.retain(|o| o.name.to != 1);
    let reached = reachable(&writer.catalog.objects);
    let stranded = writer.catalog.objects.iter().filter(|o| !reached.contains(&o.name.to)).count();
    assert!(stranded > 1700);
    writer.live(3 * DAY, MINUTE);
    let made = writer.prune();
    assert_eq!(made.stranded.len(), stranded, "{made}");
    writer.live(400 * DAY, HOUR);
    assert!(writer.prune().stranded.is_empty());
}

#[test]
fn parts_without_a_first_go_once_the_chain_has_gone_on() {
    let part = |to, part| Name { level: SNAPSHOT, from: 0, to, part }.key(CHAIN);
    let mut writer = Writer::new();
    writer.live(3 * DAY, MINUTE);
    let dead = part(100, 3);
    writer.catalog.orphans = vec![dead.clone(), part(writer.seq + 1, 1), "of/somebody/else".into()];
    assert_eq!(writer.prune().remove_parts, [dead]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    /// Kills in the midst of pruning, and holes: whatever part of the plan was carried out, all that the plan
    /// keeps reachable is so.
    #[test]
    fn any_part_of_a_plan_harms_nothing(spans in prop::collection::vec((1i64..40, 1i64..90), 1..6), holes in 0usize..4, bits in any::<u64>()) {
        let mut writer = Writer::new();
        for (hours, step) in spans {
            writer.live(hours * HOUR, step * MINUTE);
        }
        for hole in 0..holes.min(writer.catalog.objects.len() - 1) {
            let index = (bits as usize).wrapping_mul(hole + 31) % writer.catalog.objects.len();
            writer.catalog.objects.remove(index);
        }
        let all = writer.catalog.objects.clone();
        let Ok(made) = plan(&writer.catalog, writer.now, &Policy::default()) else { return Ok(()) };
        let before = reachable(&all);
        let kept = reachable(&made.keep);
        prop_assert_eq!(before.last(), kept.last());
        let fresh = all.iter().filter(|o| o.modified_ms.unwrap() >= writer.now - DAY).map(|o| o.name.to);
        for position in fresh.filter(|p| before.contains(p)) {
            prop_assert!(kept.contains(&position), "position {} of the last day", position);
        }
        let gone: BTreeSet<Name> =
            made.remove.iter().enumerate().filter(|(i, _)| bits >> (i % 64) & 1 == 1).map(|(_, o)| o.name).collect();
        writer.catalog.objects.retain(|o| !gone.contains(&o.name));
        let left = reachable(&writer.catalog.objects);
        prop_assert!(kept.is_subset(&left));
        let again = plan(&writer.catalog, writer.now, &Policy::default()).unwrap();
        prop_assert!(kept.is_subset(&reachable(&again.keep)));
    }
}

/// Two days of one object every five minutes, in a store.
async fn stored() -> (Fake, PrunePlan) {
    let mut writer = Writer::new();
    writer.live(3 * DAY, 5 * MINUTE);
    let fake = Fake::new();
    for object in &writer.catalog.objects {
        let header = Header {
            chain: CHAIN,
            name: object.name,
            parts: 1,
            epoch: 1,
            time_ms: 0,
            prev: [0; 32],
            nonce: [0; 24],
        };
        let mut bytes = header.encode().to_vec();
        bytes.resize(usize::try_from(object.bytes).unwrap(), 0);
        fake.put_new(&object.keys[0], bytes.into()).await.unwrap();
    }
    let made = writer.prune();
    assert!(made.remove.len() > 100, "{made}");
    (fake, made)
}

#[tokio::test]
async fn an_interrupted_prune_is_finished_by_the_next() {
    let (fake, made) = stored().await;
    fake.fail("delete", [Fault::LostResponse]);
    let done = Mutex::new(0);
    let error = apply(&fake, &made, |_| *done.lock().unwrap() += 1).await.unwrap_err();
    assert!(matches!(error, PruneError::Store(_)), "{error}");
    assert!(*done.lock().unwrap() < made.remove.len());
    apply(&fake, &made, |_| ()).await.unwrap();
    let left = Catalog::load(&fake, CHAIN).await.unwrap();
    let names = |objects: &[Object]| objects.iter().map(|o| o.name).collect::<BTreeSet<_>>();
    assert_eq!(names(&left.objects), names(&made.keep));
}

#[tokio::test]
async fn beside_a_writer_its_new_objects_stay_and_a_lost_cover_stops_all() {
    let (fake, made) = stored().await;
    let newer = Name { level: 0, from: 9000, to: 9001, part: 0 }.key(CHAIN);
    fake.put_new(&newer, Bytes::from_static(b"x")).await.unwrap();
    let cover = made.keep.iter().find(|o| o.name.level == SNAPSHOT).unwrap().keys[0].clone();
    let bytes = fake.objects()[&cover].clone();
    fake.tamper(&cover, None);
    let before = fake.objects().len();
    let error = apply(&fake, &made, |_| ()).await.unwrap_err();
    assert!(matches!(&error, PruneError::Changed(key) if *key == cover), "{error}");
    assert_eq!(fake.objects().len(), before);
    fake.tamper(&cover, Some(bytes));
    apply(&fake, &made, |_| ()).await.unwrap();
    assert!(fake.objects().contains_key(&newer));
}

/// A cover that is no object any more, though it has the right size: nothing may go.
#[tokio::test]
async fn what_should_cover_is_read_before_anything_goes() {
    let (fake, made) = stored().await;
    assert!(
        made.cover.iter().any(|o| o.name.level == 2) && made.cover.iter().any(|o| o.name.level == SNAPSHOT)
    );
    let before = fake.objects().len();
    for cover in &made.cover {
        let key = &cover.keys[0];
        let good = fake.objects()[key].clone();
        fake.tamper(key, Some(vec![0; good.len()].into()));
        let error = apply(&fake, &made, |_| ()).await.unwrap_err();
        assert!(matches!(&error, PruneError::Unsound(named) if named == key), "{error}");
        assert_eq!(fake.objects().len(), before);
        fake.tamper(key, Some(good));
    }
    apply(&fake, &made, |_| ()).await.unwrap();
}
