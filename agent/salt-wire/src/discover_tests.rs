use std::io::Write;

use super::*;

/// A configuration folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }
    folder
}

fn publish(folder: &tempfile::TempDir) -> String {
    minion(&folder.path().join("minion")).unwrap().endpoints.publish.to_string()
}

#[test]
fn the_sockets_of_captured_minions() {
    // The names that real minions gave their sockets.
    for (id, hash) in [
        ("flip-v3006.25", "cd4c041eab"),
        ("flip-v3006.28", "37e4ca115f"),
        ("flip-v3007.15", "63cf77a8f2"),
        ("flip-v3008.3", "16dbdd7789"),
    ] {
        let folder = folder(&[("minion", &format!("id: {id}\n"))]);
        assert_eq!(publish(&folder), format!("/var/run/salt/minion/minion_event_{hash}_pub.ipc"));
    }
}

#[test]
fn included_files_override_in_the_order_of_names() {
    let folder = folder(&[
        ("minion", "id: a\ninclude: more/*/x?.conf\nsock_dir: /main"),
        ("minion.d/10.conf", "sock_dir: /ten\nid: flip-v3008.3"),
        ("minion.d/20.conf", "sock_dir: /twenty\ninclude: [deep.yaml]"),
        ("minion.d/deep.yaml", "hash_type: SHA256"),
        ("minion.d/.hidden.conf", "sock_dir: /hidden"),
        ("minion.d/30.conf.bak", "sock_dir: /backup"),
        ("more/b/x1.conf", "sock_dir: /last"),
        ("more/b/x10.conf", "sock_dir: /no"),
    ]);
    assert_eq!(publish(&folder), "/last/minion_event_16dbdd7789_pub.ipc");
}

#[test]
fn root_dir_and_long_paths_as_salt_does_it() {
    let id = "id: flip-v3008.3";
    for (config, dir) in [
        ("root_dir: /r", "/r/var/run/salt/minion"),
        ("root_dir: /r\nsock_dir: /r/s", "/r/s"),
        ("root_dir: /r\nsock_dir: s", "/r/s"),
        ("sock_dir: /a/very/long/folder/for/sockets\ncachedir: /c", "/c/.salt-unix"),
        ("sock_dir: /a/very/long/folder/for/sockets\ncachedir: /c\nroot_dir: /r", "/r/c/.salt-unix"),
    ] {
        let folder = folder(&[("minion", &format!("{id}\n{config}"))]);
        assert_eq!(publish(&folder), format!("{dir}/minion_event_16dbdd7789_pub.ipc"), "{config}");
    }
}

#[test]
fn an_id_that_the_minion_made_up() {
    let folder = folder(&[("etc/salt/minion_id", "flip-v3006.28\n")]);
    let config = folder.path().join("minion");
    std::fs::copy(folder.path().join("etc/salt/minion_id"), folder.path().join("unused")).unwrap();
    File::create(&config)
        .unwrap()
        .write_all(format!("root_dir: {}", folder.path().display()).as_bytes())
        .unwrap();
    assert_eq!(minion(&config).unwrap().id, "flip-v3006.28");
    std::fs::remove_file(folder.path().join("etc/salt/minion_id")).unwrap();
    let error = minion(&config).unwrap_err();
    assert!(matches!(error, DiscoverError::NoId { .. }), "{error}");
}

#[test]
fn tcp_takes_ports() {
    let folder = folder(&[
        ("minion", "id: a\nipc_mode: tcp\ntcp_pull_port: 7"),
        ("master", "ipc_mode: tcp"),
        ("wrong", "id: a\nipc_mode: tcp\ntcp_pub_port: many"),
    ]);
    let at = |name| folder.path().join(name);
    let endpoints = minion(&at("minion")).unwrap().endpoints;
    assert_eq!(
        (endpoints.publish.to_string(), endpoints.pull.to_string()),
        ("127.0.0.1:4510".into(), "127.0.0.1:7".into())
    );
    assert_eq!(master(&at("master")).unwrap().pull.to_string(), "127.0.0.1:4513");
    assert!(minion(&at("wrong")).unwrap_err().to_string().contains("tcp_pub_port"));
}

#[test]
fn masters_are_named_as_the_minion_names_them() {
    for (config, masters) in [
        ("id: a", vec!["salt"]),
        ("id: a\nmaster: 10.0.0.1", vec!["10.0.0.1"]),
        ("id: a\nmaster: [one.example.org:4506, two]", vec!["one.example.org", "two"]),
        ("id: a\nmaster:\n  - '::1'", vec!["::1"]),
    ] {
        let folder = folder(&[("minion", config)]);
        assert_eq!(minion(&folder.path().join("minion")).unwrap().masters, masters, "{config}");
    }
}

#[test]
fn the_master_and_its_default() {
    let folder = folder(&[("master", "sock_dir: /s")]);
    assert_eq!(master(&folder.path().join("master")).unwrap(), Endpoints::of_master(Path::new("/s")));
    let absent = master(&folder.path().join("absent")).unwrap();
    assert_eq!(absent.publish.to_string(), "/var/run/salt/master/master_event_pub.ipc");
}

#[test]
fn what_does_not_lead_to_a_bus_is_named() {
    for (config, named) in [
        ("id: a\nhash_type: md5", "hash_type"),
        ("id: a\nipc_mode: carrier pigeon", "ipc_mode"),
        ("id: |\n  a", "`id`"),
        ("id: a\ninclude: minion", "circles"),
    ] {
        let folder = folder(&[("minion", config)]);
        let error = minion(&folder.path().join("minion")).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
