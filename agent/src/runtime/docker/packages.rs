//! Which of the host's Debian packages a container needs, and what they consist of.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a Python app may expect of any Debian, where the host has it.
const WANTED: [&str; 14] = [
    "base-files",
    "base-passwd",
    "ca-certificates",
    "coreutils",
    "dash",
    "libc-bin",
    "libffi8",
    "libgomp1",
    "libstdc++6",
    "media-types",
    "netbase",
    "python3",
    "python3-distutils",
    "tzdata",
];

/// What others need only to be installed and configured, which the host has done.
const NEVER: [&str; 5] = ["debconf", "debconf-2.0", "dpkg", "openssl", "perl-base"];

/// What `dpkg-query` is asked for each package.
pub(super) const FORMAT: &str =
    "${Package}\t${Architecture}\t${Version}\t${db:Status-Status}\t${Pre-Depends}\t${Depends}\t${Provides}\n";

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    name: String,
    architecture: String,
    version: String,
    /// One of each is needed.
    needs: Vec<Vec<String>>,
}

impl Package {
    /// Its name as `dpkg-query` takes it.
    pub(super) fn query(&self) -> String {
        if self.architecture == "all" {
            self.name.clone()
        } else {
            format!("{}:{}", self.name, self.architecture)
        }
    }

    /// Name, architecture and version: the same line is the same files.
    pub(super) fn line(&self) -> String {
        format!("{} {} {}\n", self.name, self.architecture, self.version)
    }
}

/// The installed packages.
pub(super) struct Packages {
    by_name: BTreeMap<String, Package>,
    /// Which package stands for a virtual one.
    provided: HashMap<String, String>,
}

impl Packages {
    /// Reads `dpkg-query`'s answer in [`FORMAT`].
    pub(super) fn read(text: &str) -> Self {
        let mut packages = Self { by_name: BTreeMap::new(), provided: HashMap::new() };
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, architecture, version, "installed", before, needs, provides] = fields.as_slice()
            else {
                continue;
            };
            for virtual_name in names(provides) {
                packages.provided.entry(virtual_name).or_insert_with(|| (*name).to_owned());
            }
            let needs = [*before, *needs].into_iter().flat_map(|list| list.split(','));
            let package = Package {
                name: (*name).to_owned(),
                architecture: (*architecture).to_owned(),
                version: (*version).to_owned(),
                needs: needs.map(|one| one.split('|').filter_map(name_of).collect()).collect(),
            };
            // Of a package in two architectures the host's own comes first.
            packages.by_name.entry((*name).to_owned()).or_insert(package);
        }
        packages
    }

    /// What a container is made of: the packages that are always wanted, `more`, and all that they need.
    ///
    /// # Errors
    /// With the names of `more` that are not installed.
    pub(super) fn closure(&self, more: &[String]) -> Result<Vec<&Package>, Vec<String>> {
        let missing: Vec<String> = more.iter().filter(|name| self.find(name).is_none()).cloned().collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        let mut left: Vec<&str> = WANTED.into_iter().chain(more.iter().map(String::as_str)).collect();
        let mut taken = BTreeSet::new();
        while let Some(package) = left.pop().map(|name| self.find(name)) {
            let Some(package) = package.filter(|package| taken.insert(package.name.as_str())) else {
                continue;
            };
            for alternatives in &package.needs {
                if alternatives.iter().any(|name| NEVER.contains(&name.as_str())) {
                    continue;
                }
                left.extend(alternatives.iter().map(String::as_str).find(|name| self.find(name).is_some()));
            }
        }
        Ok(taken.into_iter().filter_map(|name| self.by_name.get(name)).collect())
    }

    fn find(&self, name: &str) -> Option<&Package> {
        self.by_name.get(name).or_else(|| self.by_name.get(self.provided.get(name)?))
    }
}

fn names(list: &str) -> impl Iterator<Item = String> + '_ {
    list.split(',').filter_map(name_of)
}

/// `libc6:any (>= 2.36)` is `libc6`.
fn name_of(text: &str) -> Option<String> {
    let name = text.split_whitespace().next()?;
    Some(name.split(':').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTALLED: &str = "\
libc6\tamd64\t2.36\tinstalled\t\tlibgcc-s1, libcrypt1 (>= 1:4)\t
libcrypt1\tamd64\t4\tinstalled\t\tlibc6\t
libgcc-s1\tamd64\t12\tinstalled\t\tgcc-12-base (= 12), libc6\t
python3\tamd64\t3.11\tinstalled\tpython3-minimal (= 3.11)\tpython3.11:any (>= 3.11~), gone | other\t
python3-minimal\tamd64\t3.11\tinstalled\t\tdpkg (>= 1.13), debconf | debconf-2.0\t
python3.11\tamd64\t3.11\tinstalled\t\tmailcap | mime-support\t
media-types\tall\t10\tinstalled\t\t\tmime-support
dpkg\tamd64\t1.21\tinstalled\t\t\t
debconf\tall\t1.5\tinstalled\t\tperl-base\t
old\tamd64\t1\tconfig-files\t\t\t
postgres\tamd64\t15\tinstalled\t\tlibc6\t
a line that is none
";

    fn taken(more: &[&str]) -> Result<Vec<String>, Vec<String>> {
        let more: Vec<String> = more.iter().map(|name| (*name).to_owned()).collect();
        let packages = Packages::read(INSTALLED);
        packages.closure(&more).map(|list| list.iter().map(|package| package.query()).collect())
    }

    #[test]
    fn what_python_needs_is_taken_and_nothing_else() {
        let python = ["media-types", "python3:amd64", "python3-minimal:amd64", "python3.11:amd64"];
        assert_eq!(taken(&[]).unwrap(), python);
    }

    #[test]
    fn more_can_be_asked_for_and_must_be_installed() {
        let list = taken(&["postgres"]).unwrap();
        assert!(
            list.contains(&"postgres:amd64".into()) && list.contains(&"libgcc-s1:amd64".into()),
            "{list:?}"
        );
        assert_eq!(taken(&["postgres", "old", "nothing"]).unwrap_err(), ["old", "nothing"]);
    }
}
