//! Whether an answer through nginx counts as healthy.

use flipside_api::Health;

/// An answer, as far as health looks at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body, or the beginning of it.
    pub body: Vec<u8>,
}

/// Why an answer is not healthy, or `None`.
pub fn complaint(expected: &Health, answer: &Answer) -> Option<String> {
    let status = answer.status;
    let to = answer.location.as_ref().map_or_else(String::new, |to| {
        let to: String = to.chars().filter(|c| !c.is_control()).take(200).collect();
        format!(" to {to}")
    });
    match expected.status {
        Some(wanted) if wanted != status => return Some(format!("answered {status}{to}, not {wanted}")),
        None if status >= 500 => return Some(format!("answered {status}")),
        _ => {}
    }
    let text = expected.contains.as_deref().filter(|text| !text.is_empty())?;
    let found = answer.body.windows(text.len()).any(|window| window == text.as_bytes());
    (!found).then(|| format!("answered {status}{to}, and the body does not hold {text:?}"))
}

/// Whether a status comes from the app itself, and not from a server that has no answer of it (yet).
pub fn is_definite(status: u16) -> bool {
    !matches!(status, 502..=504)
}

/// Whether the answer only sends a browser to the same page over https.
pub fn leads_to_https(expected: &Health, answer: &Answer, host: &str) -> bool {
    let to = answer.location.as_deref().and_then(|to| to.strip_prefix("https://"));
    let same = to.and_then(|to| to.split_once('/')).is_some_and(|(authority, rest)| {
        let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
        name.eq_ignore_ascii_case(host) && format!("/{rest}") == expected.path
    });
    same && (300..400).contains(&answer.status) && expected.status != Some(answer.status)
}

/// The host to ask for: the first domain that is no pattern, else one that the first pattern matches.
pub fn host(domains: &[String]) -> String {
    let plain = domains.iter().find(|domain| !domain.starts_with("*."));
    match (plain, domains.first()) {
        (Some(domain), _) => domain.clone(),
        (None, Some(pattern)) => pattern.replacen('*', "www", 1),
        (None, None) => "localhost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, location: None, body: body.into() }
    }

    #[test]
    fn without_a_status_anything_below_500_is_healthy() {
        for status in [200, 301, 302, 404, 403] {
            assert_eq!(complaint(&Health::default(), &answer(status, "")), None);
        }
        assert!(complaint(&Health::default(), &answer(502, "")).is_some());
    }

    #[test]
    fn a_status_that_is_said_is_wanted() {
        let expected = Health { status: Some(200), ..Health::default() };
        assert_eq!(complaint(&expected, &answer(200, "")), None);
        let redirect = Answer { location: Some("https://x/\r\n".into()), ..answer(301, "") };
        assert_eq!(complaint(&expected, &redirect).unwrap(), "answered 301 to https://x/, not 200");
    }

    #[test]
    fn a_redirect_to_the_same_page_over_https_is_told_from_others() {
        let expected = Health::default();
        let to = |location: &str| Answer { location: Some(location.into()), ..answer(301, "") };
        for (location, same) in [
            ("https://x.org/", true),
            ("https://x.org:8443/", true),
            ("https://y.org/", false),
            ("https://x.org/login", false),
            ("http://x.org/", false),
            ("/", false),
        ] {
            assert_eq!(leads_to_https(&expected, &to(location), "x.org"), same, "{location}");
        }
        let wanted = Health { status: Some(301), ..expected };
        assert!(!leads_to_https(&wanted, &to("https://x.org/"), "x.org"));
    }

    #[test]
    fn a_text_that_is_said_is_wanted() {
        let expected = Health { contains: Some("ok".into()), ..Health::default() };
        assert_eq!(complaint(&expected, &answer(200, "all ok")), None);
        assert!(complaint(&expected, &answer(200, "")).unwrap().contains("does not hold \"ok\""));
        assert_eq!(complaint(&Health { contains: Some(String::new()), ..expected }, &answer(200, "")), None);
    }

    #[test]
    fn the_host_is_a_real_domain() {
        assert_eq!(host(&["*.x.org".into(), "y.org".into()]), "y.org");
        assert_eq!(host(&["*.x.org".into()]), "www.x.org");
    }
}
