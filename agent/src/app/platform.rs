//! What the platform adds to an app's environment.

use flipside_api::{AppSpec, ReleaseId};

use super::{env::Env, paths::AppPaths};

/// What a release and its host add to the environment.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// The spec.
    pub spec: &'a AppSpec,
    /// The release.
    pub release: &'a ReleaseId,
    /// Where the app lies.
    pub paths: &'a AppPaths,
    /// memcached as host:port.
    pub memcached: &'a str,
    /// A secret key for an app that brings none.
    pub secret_key: &'a str,
    /// The entry as `module:attribute`.
    pub wsgi: &'a str,
    /// The project's own settings module, if it has one.
    pub settings: Option<&'a str>,
    /// The folder of the overlay, if there is one.
    pub overlay: Option<&'a str>,
    /// The folder of the configuration files, if there are any.
    pub files: Option<&'a str>,
}

/// Names that follow from the release alone.
const OF_RELEASE: [&str; 4] = ["FLIPSIDE_RELEASE", "FLIPSIDE_WSGI", "FLIPSIDE_SETTINGS", "PATH"];

/// The platform's variables. `pillar` is looked at, not merged: its settings module is the one to wrap.
pub fn variables(offer: &Offer<'_>, pillar: &Env) -> Env {
    let Offer { spec, release, paths, .. } = offer;
    let data = paths.data().display().to_string();
    let database = spec.databases.iter().find(|name| !name.contains(['*', '?', '[']));
    let database = database.map_or("db.sqlite3", String::as_str);
    let location = |of: &Option<flipside_api::Location>, default: &str| {
        of.as_ref().map_or_else(|| default.to_owned(), |location| location.url.clone())
    };
    let settings =
        pillar.get("DJANGO_SETTINGS_MODULE").map(String::as_str).or(offer.settings).unwrap_or_default();
    let outer = spec.overlay_settings.as_deref().unwrap_or(settings);
    let overlay = offer.overlay.unwrap_or_default();
    let bin = paths.release(release).join("venv/bin");
    let mut env: Env = [
        ("ALLOWED_HOSTS", allowed(&spec.domains)),
        ("CACHE_URL", format!("pymemcache://{}", offer.memcached)),
        ("DATABASE_URL", format!("sqlite:///{data}/{database}")),
        ("DATA_DIR", data),
        ("DJANGO_SETTINGS_MODULE", outer.to_owned()),
        ("DOMAIN", super::health::host(&spec.domains)),
        ("FLIPSIDE_APP", spec.app.to_string()),
        ("FLIPSIDE_OVERLAY", overlay.to_owned()),
        ("FLIPSIDE_RELEASE", release.to_string()),
        ("FLIPSIDE_SETTINGS", settings.to_owned()),
        ("FLIPSIDE_WSGI", offer.wsgi.to_owned()),
        ("HOME", paths.user_home().display().to_string()),
        ("MEDIA_DIR", paths.media().display().to_string()),
        ("MEDIA_URL", location(&spec.media, "/media/")),
        ("MEMCACHED", offer.memcached.to_owned()),
        ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display())),
        ("PUBLIC_URL", spec.public_url.clone()),
        ("PYTHONPATH", overlay.to_owned()),
        ("SECRET_KEY", offer.secret_key.to_owned()),
        ("STATIC_ROOT", paths.static_root().display().to_string()),
        ("STATIC_URL", location(&spec.static_files, "/static/")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    if let Some(folder) = offer.files {
        env.insert("FILES_DIR".to_owned(), folder.to_owned());
    }
    // What is collected must lie where nginx looks for it.
    if let Some(location) = &spec.static_files
        && let Ok(root) = super::env::substitute(&location.root, &env)
    {
        env.insert("STATIC_ROOT".to_owned(), root);
    }
    // Set to nothing they would still be seen, and mean something else than being absent.
    for name in ["DJANGO_SETTINGS_MODULE", "PYTHONPATH"] {
        if env.get(name).is_some_and(String::is_empty) {
            env.remove(name);
        }
    }
    env
}

/// What the pillar must not win: the module that wraps its settings, the overlay's place on the path, and where
/// its configuration files are.
pub fn insist(env: &mut Env, platform: &Env) {
    for name in ["DJANGO_SETTINGS_MODULE", "FILES_DIR"] {
        if let Some(value) = platform.get(name) {
            env.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(overlay) = platform.get("PYTHONPATH") {
        let all = match env.get("PYTHONPATH") {
            Some(own) if own != overlay && !own.is_empty() => format!("{overlay}:{own}"),
            _ => overlay.clone(),
        };
        env.insert("PYTHONPATH".to_owned(), all);
    }
}

/// Whether two environments differ in more than what a release brings with it.
pub fn same_but_for_release(one: &Env, other: &Env) -> bool {
    let rest = |env: &Env| -> Env {
        env.iter()
            .filter(|(name, _)| !OF_RELEASE.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    rest(one) == rest(other)
}

/// Django's spelling: a leading dot matches all subdomains.
fn allowed(domains: &[String]) -> String {
    let hosts: Vec<&str> = domains.iter().map(|domain| domain.strip_prefix('*').unwrap_or(domain)).collect();
    hosts.join(",")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn spec() -> AppSpec {
        serde_json::from_value(serde_json::json!({
            "app": "blog", "template": "t", "domains": ["b.org", "*.c.org"], "public_url": "https://b.org",
            "databases": ["*.db", "main.db"], "overlay_settings": "flipside_settings",
        }))
        .unwrap()
    }

    fn with(spec: &AppSpec, pillar: &Env, overlay: Option<&str>) -> Env {
        let root = Path::new("/x");
        let paths = AppPaths::new(&spec.app, root, root, root);
        let release = ReleaseId::of("1", b"").unwrap();
        let offer = Offer {
            spec,
            release: &release,
            paths: &paths,
            memcached: "127.0.0.1:11211",
            secret_key: "key",
            wsgi: "blog.wsgi:application",
            settings: Some("blog.settings"),
            overlay,
            files: Some("/x/blog/files/0a"),
        };
        let platform = variables(&offer, pillar);
        let mut env = super::super::env::render(pillar, &platform).unwrap();
        insist(&mut env, &platform);
        env
    }

    #[test]
    fn the_platforms_names_are_there() {
        let env = with(&spec(), &Env::new(), Some("/x/blog/overlays/a"));
        for (name, value) in [
            ("DATA_DIR", "/x/blog/data"),
            ("DATABASE_URL", "sqlite:////x/blog/data/main.db"),
            ("ALLOWED_HOSTS", "b.org,.c.org"),
            ("DOMAIN", "b.org"),
            ("DJANGO_SETTINGS_MODULE", "flipside_settings"),
            ("FLIPSIDE_SETTINGS", "blog.settings"),
            ("PYTHONPATH", "/x/blog/overlays/a"),
            ("SECRET_KEY", "key"),
            ("FILES_DIR", "/x/blog/files/0a"),
        ] {
            assert_eq!(env[name], value, "{name}");
        }
        assert!(env["PATH"].starts_with("/x/blog/releases/1-"));
    }

    #[test]
    fn static_files_are_collected_where_nginx_looks() {
        let serving = |root: &str| {
            let location = serde_json::json!({ "url": "/s/", "root": root });
            AppSpec { static_files: serde_json::from_value(location).unwrap(), ..spec() }
        };
        let root = |spec: &AppSpec| with(spec, &Env::new(), None)["STATIC_ROOT"].clone();
        assert_eq!(root(&serving("${STATIC_ROOT}")), root(&spec()));
        assert_eq!(root(&serving("${DATA_DIR}/www")), "/x/blog/data/www");
    }

    #[test]
    fn the_pillars_settings_are_wrapped() {
        let pillar = Env::from([
            ("DJANGO_SETTINGS_MODULE".to_owned(), "blog.prod".to_owned()),
            ("PYTHONPATH".to_owned(), "/opt/lib".to_owned()),
        ]);
        let env = with(&spec(), &pillar, Some("/o"));
        assert_eq!(env["DJANGO_SETTINGS_MODULE"], "flipside_settings");
        assert_eq!(env["FLIPSIDE_SETTINGS"], "blog.prod");
        assert_eq!(env["PYTHONPATH"], "/o:/opt/lib");
        let bare = AppSpec { overlay_settings: None, ..spec() };
        let env = with(&bare, &pillar, None);
        assert_eq!(env["DJANGO_SETTINGS_MODULE"], "blog.prod");
        assert_eq!(env["PYTHONPATH"], "/opt/lib");
        assert!(!with(&bare, &Env::new(), None).contains_key("PYTHONPATH"));
    }

    #[test]
    fn a_new_release_alone_is_no_new_environment() {
        let one = with(&spec(), &Env::new(), None);
        let mut other = one.clone();
        other.insert("FLIPSIDE_RELEASE".into(), "2".into());
        assert!(same_but_for_release(&one, &other));
        other.insert("A".into(), "b".into());
        assert!(!same_but_for_release(&one, &other));
    }
}
