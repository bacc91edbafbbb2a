//! The migrations of a plan, for people: each with its operations, and a mark at what is not harmless.

use flipside_api::{Effect, Migration, Migrations};
use serde_json::Value;

use super::clean;

/// The lines; none where the plan has nothing to do with migrations.
pub(crate) fn migrations(data: Option<&Value>) -> Vec<String> {
    let told = data.and_then(|data| data.get("migrations")).cloned().unwrap_or_default();
    let Ok(told) = serde_json::from_value::<Migrations>(told) else { return Vec::new() };
    let mut lines = Vec::new();
    for (title, list) in
        [("migrations that wait", &told.pending), ("not known to this release", &told.unknown)]
    {
        if !list.is_empty() {
            lines.push(format!("  {title}:"));
            lines.extend(list.iter().flat_map(one));
        }
    }
    lines
}

fn one(migration: &Migration) -> Vec<String> {
    let Migration { database, app, name, operations } = migration;
    let mut lines = vec![format!("    {}.{} ({})", clean(app), clean(name), clean(database))];
    for operation in operations {
        let (mark, end) = match operation.effect() {
            Effect::Destructive => ("!", "  destructive"),
            Effect::Breaking => ("!", "  held"),
            Effect::Harmless => ("·", ""),
        };
        lines.push(format!("      {mark} {} {}{end}", clean(&operation.kind), clean(&operation.subject)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_that_is_not_harmless_is_marked() {
        let operation = |kind, effect: &str| json!({"kind": kind, "subject": "Post.x\n", "destructive": effect == "d", "breaking": effect == "b"});
        let waiting = json!({"database": "default", "app": "blog", "name": "0002_x",
            "operations": [operation("RemoveField", "d"), operation("AddField", "b"), operation("AddIndex", "")]});
        let data = json!({"kind": "hot", "migrations": {"pending": [waiting]}});
        assert_eq!(
            migrations(Some(&data)),
            [
                "  migrations that wait:",
                "    blog.0002_x (default)",
                "      ! RemoveField Post.x\u{fffd}  destructive",
                "      ! AddField Post.x\u{fffd}  held",
                "      · AddIndex Post.x\u{fffd}",
            ]
        );
        assert!(migrations(Some(&json!({"migrations": null}))).is_empty() && migrations(None).is_empty());
    }
}
