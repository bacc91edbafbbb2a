//! Finding the app in its wheels: which wheel is its own, its entry and its settings.

use flipside_api::AppName;

use super::wheel::{Wheel, normal};
use crate::failures::{Result, usage};

/// Where the app begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) wsgi: Option<String>,
    pub(crate) settings: Option<String>,
}

impl Entry {
    /// Refuses what is no module.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(wsgi) = &self.wsgi
            && !wsgi
                .split_once(':')
                .is_some_and(|(module, attribute)| is_module(module) && is_module(attribute))
        {
            return Err(usage(format!("{wsgi:?} is no entry"))
                .hint("write it as module:attribute, like blog.wsgi:application"));
        }
        if let Some(settings) = &self.settings
            && !is_module(settings)
        {
            return Err(
                usage(format!("{settings:?} is no Python module")).hint("write it like blog.settings")
            );
        }
        Ok(())
    }
}

fn is_module(text: &str) -> bool {
    text.split('.').all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

/// The wheels that are the app's own: by name, else those that hold its entry or settings.
pub(crate) fn own<'a>(wheels: &'a [Wheel], app: &AppName, entry: &Entry) -> Vec<&'a Wheel> {
    let named: Vec<&Wheel> = wheels.iter().filter(|wheel| wheel.name == normal(app.as_str())).collect();
    if !named.is_empty() {
        return named;
    }
    let module =
        |text: &Option<String>| text.as_ref().and_then(|text| Some(text.split(':').next()?.to_owned()));
    let modules: Vec<String> = [module(&entry.wsgi), module(&entry.settings)].into_iter().flatten().collect();
    wheels.iter().filter(|wheel| modules.iter().any(|module| holds(wheel, module))).collect()
}

/// Whether the wheel holds the module.
pub(crate) fn holds(wheel: &Wheel, module: &str) -> bool {
    wheel.entries.iter().any(|entry| files_of(module).contains(entry))
}

/// The files that may hold a module.
pub(crate) fn files_of(module: &str) -> [String; 2] {
    let path = module.replace('.', "/");
    [format!("{path}.py"), format!("{path}/__init__.py")]
}

/// What was asked for, and for the rest what the app's own wheels say.
pub(crate) fn complete(asked: &Entry, own: &[&Wheel]) -> Result<Entry> {
    let mut entry = asked.clone();
    let from_manage = own.iter().find_map(|wheel| settings_in(&wheel.text("manage.py").ok()??));
    if entry.wsgi.is_none() {
        entry.wsgi = wsgi_in(own, from_manage.as_deref())?;
    }
    if entry.settings.is_none() {
        let module = entry.wsgi.as_deref().and_then(|wsgi| wsgi.split(':').next()).unwrap_or_default();
        let [path, _] = files_of(module);
        let in_wheel = |wheel: &&Wheel| {
            let roots = wheel.roots().ok()?;
            roots.iter().find_map(|root| settings_in(&wheel.text(&format!("{root}{path}")).ok()??))
        };
        let from_wsgi = own.iter().find_map(in_wheel);
        let beside = module.rsplit_once('.').map(|(package, _)| format!("{package}.settings"));
        let beside = beside.filter(|settings| own.iter().any(|wheel| holds(wheel, settings)));
        entry.settings = from_wsgi.or(from_manage).or(beside);
    }
    Ok(entry)
}

/// The entry: the one `wsgi.py` that makes an application; of several the one beside manage.py's settings.
fn wsgi_in(own: &[&Wheel], settings: Option<&str>) -> Result<Option<String>> {
    let found = entries(own, "wsgi.py")?;
    if let ([], Some(asgi)) = (found.as_slice(), entries(own, "asgi.py")?.first()) {
        return Err(usage(format!(
            "{asgi} is an entry for ASGI, and there is none for WSGI, which is served"
        ))
        .hint(
            "add a wsgi.py as `django-admin startproject` makes it, or name the entry with --wsgi MOD:ATTR",
        ));
    }
    let beside = settings.and_then(|settings| {
        found.iter().find(|module| {
            let package = module.strip_suffix(".wsgi").unwrap_or_default();
            settings == package
                || settings
                    .strip_prefix(package)
                    .is_some_and(|rest| package.is_empty() || rest.starts_with('.'))
        })
    });
    let depth = |module: &String| module.matches('.').count();
    let chosen = match (beside, found.as_slice()) {
        (Some(module), _) => Some(module),
        (None, []) => None,
        (None, [first, second, ..]) if depth(first) == depth(second) => {
            return Err(usage(format!("there are several entries: {}", found.join(", ")))
                .hint("name the one to serve with --wsgi MOD:application"));
        }
        (None, [first, ..]) => Some(first),
    };
    Ok(chosen.map(|module| format!("{module}:application")))
}

/// The modules in files of this name that make an application, the highest first.
fn entries(own: &[&Wheel], file: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for wheel in own {
        let roots = wheel.roots()?;
        for path in wheel.entries.iter().filter(|path| path.rsplit('/').next() == Some(file)) {
            // The longest root that it is below.
            let root = roots.iter().filter(|root| path.starts_with(*root)).max_by_key(|root| root.len());
            let module = path[root.map_or(0, String::len)..].trim_end_matches(".py").replace('/', ".");
            if is_module(&module) && wheel.text(path)?.is_some_and(|text| makes_application(&text)) {
                found.push(module);
            }
        }
    }
    found.sort_by_key(|module| (module.matches('.').count(), module.clone()));
    Ok(found)
}

/// Whether something is assigned to `application`, alone, with its type or among others.
fn makes_application(text: &str) -> bool {
    text.lines().any(|line| {
        let mut names = line.split('=').map(|part| part.split(':').next().unwrap_or_default().trim());
        names.next_back();
        names.any(|name| name == "application")
    })
}

/// The module in `setdefault("DJANGO_SETTINGS_MODULE", "blog.settings")` or an assignment to it, where it is written
/// out: what is computed cannot be told from here.
pub(crate) fn settings_in(source: &str) -> Option<String> {
    let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    code.join("\n").split("DJANGO_SETTINGS_MODULE").skip(1).find_map(|rest| {
        let between = |c: char| c.is_whitespace() || ",=])".contains(c);
        let value = rest.trim_start_matches(['"', '\'']).trim_start_matches(between);
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (module, rest) = value[1..].split_once(quote)?;
        let whole = rest.trim_start_matches(' ').chars().next().is_none_or(|next| ",)\r\n;#".contains(next));
        (whole && is_module(module)).then(|| module.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_as_django_writes_them() {
        let manage = "import os\n# DJANGO_SETTINGS_MODULE 'x'\n    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')\n";
        assert_eq!(settings_in(manage).unwrap(), "mysite.settings");
        let other = "os.environ[\"DJANGO_SETTINGS_MODULE\"] = \"a.settings.prod\"";
        assert_eq!(settings_in(other).unwrap(), "a.settings.prod");
        let black = "os.environ.setdefault(\n    'DJANGO_SETTINGS_MODULE',\n    'a.settings'  # ours\n)";
        assert_eq!(settings_in(black).unwrap(), "a.settings");
        for computed in
            ["NAME", "'%s.settings' % name('a')", "os.getenv('X', 'a.b')", "'a' + SUFFIX", "f'{a}.b'"]
        {
            let source = format!("os.environ.setdefault('DJANGO_SETTINGS_MODULE', {computed})");
            assert_eq!(settings_in(&source), None, "{computed}");
            assert_eq!(settings_in(&format!("{source}\n{other}")).unwrap(), "a.settings.prod", "{computed}");
        }
        assert_eq!(settings_in("nothing"), None);
    }

    #[test]
    fn an_application_is_found_as_people_write_it() {
        for line in
            ["application = get()", "application: WSGIHandler = get()", "app = application = get(debug=True)"]
        {
            assert!(makes_application(line), "{line}");
        }
        for line in ["from x import application", "serve(application=a)", "application()", "# application"] {
            assert!(!makes_application(line), "{line}");
        }
    }

    #[test]
    fn an_entry_is_module_and_attribute() {
        let entry = |wsgi: &str| Entry { wsgi: Some(wsgi.into()), settings: None }.check();
        assert!(entry("a.b:application").is_ok());
        for bad in ["a.b", "a:b:c", "a b:c", ":", "a.b:c\n"] {
            assert!(entry(bad).is_err(), "{bad:?}");
        }
    }
}
