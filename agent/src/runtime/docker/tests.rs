//! What the engine is asked for.

use std::path::Path;

use super::*;

fn job() -> Job {
    Job {
        socket: "/run/docker.sock".into(),
        recipe: Recipe { python: "/usr/bin/python3".into(), packages: Vec::new() },
        image: "flipside-runtime:x".into(),
        app: "blog".into(),
        instance: "i1-2".into(),
        options: "0123".into(),
        run: "/run/flipside/blog".into(),
        argv: vec!["/v/bin/python3".into(), "-u".into(), "/v/bin/uwsgi".into()],
        env: [("FLIPSIDE_HOME".to_owned(), "/srv/blog".to_owned())].into(),
        cwd: "/srv/blog/data".into(),
        enter: "/s/enter.py".into(),
        owner: (1001, 1002),
        read: vec!["/srv/blog".into()],
        write: vec!["/srv/blog/data".into()],
        memory: Some(64 << 20),
        processors: 2_000_000_000,
    }
}

#[test]
fn a_container_has_a_wall_on_every_side() {
    let body = job().body("flipside-runtime:y");
    let host = body.host_config.unwrap();
    assert_eq!(body.user.as_deref(), Some("1001:1002"));
    assert_eq!(host.readonly_rootfs, Some(true));
    assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
    assert_eq!((host.nano_cpus, host.pids_limit), (Some(2_000_000_000), Some(512)));
    assert_eq!((host.privileged, host.cap_add, host.devices), (None, None, None));
    let mounts = host.mounts.unwrap();
    let way =
        |path: &str| mounts.iter().find(|mount| mount.source.as_deref() == Some(path)).unwrap().read_only;
    assert_eq!((way("/srv/blog"), way("/srv/blog/data")), (Some(true), Some(false)));
    assert!(mounts.iter().all(|mount| mount.source == mount.target));
    assert_eq!(body.image.as_deref(), Some("flipside-runtime:y"));
    assert_eq!(body.labels.unwrap()["flipside.instance"], "i1-2");
}

#[test]
fn its_first_process_takes_the_listener_over_and_becomes_uwsgi() {
    let job = job();
    let argv = job.body("x").entrypoint.unwrap();
    let door = "/run/flipside/blog/i1-2.door";
    assert_eq!(argv, ["/v/bin/python3", "-I", "/s/enter.py", door, "/v/bin/python3", "-u", "/v/bin/uwsgi"]);
    assert_eq!(job.door(), Path::new(door));
    assert_ne!(job.name(), job.name(), "an instance that ended may not be gone when it is started again");
    let text = serde_json::to_string(&job).unwrap();
    assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
}

#[tokio::test]
async fn no_engine_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for listening in [false, true] {
        let socket = folder.path().join(format!("{listening}.sock"));
        // One that hangs up on everybody is none either.
        let listener = listening.then(|| std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let hanging_up = listener.map(|listener| std::thread::spawn(move || drop(listener.accept())));
        let failure = connect(&socket).await.map(drop).unwrap_err().failure();
        assert!(failure.message.contains(&socket.display().to_string()), "{failure:?}");
        assert!(failure.hint.contains("docker.io"), "{failure:?}");
        if let Some(thread) = hanging_up {
            thread.join().unwrap();
        }
    }
}
