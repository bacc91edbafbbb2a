//! `schema.json` says what the types say; `FLIPSIDE_BLESS=1` writes it anew.

use std::path::Path;

use flipside_api::{Migrations, Reply, Request};

#[test]
fn the_schema_is_that_of_the_types() {
    let now = serde_json::json!({
        "v": flipside_api::VERSION,
        "request": schemars::schema_for!(Request),
        "reply": schemars::schema_for!(Reply),
        "migrations": schemars::schema_for!(Migrations),
    });
    let now = serde_json::to_string_pretty(&now).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.json");
    if std::env::var_os("FLIPSIDE_BLESS").is_some() {
        use std::io::Write;
        std::fs::File::create(&path).unwrap().write_all(now.as_bytes()).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        recorded == now,
        "schema.json is not that of the types: run FLIPSIDE_BLESS=1 cargo nextest run -p flipside-api"
    );
}
