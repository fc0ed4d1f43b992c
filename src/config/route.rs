//! Routes of the settings: `channel!next-hop`, judged before a script meets them.

use std::fmt;

use crate::router::next_hop::NextHop;

/// A route that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadRoute {
    /// Whose route it is; none: the default one.
    pub(super) domain: Option<String>,
    /// What is wrong and what is allowed.
    pub(super) text: String,
}

impl fmt::Display for BadRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Every route that cannot be used, the default one first.
pub(super) fn bad_routes(default_route: &str, routes: &[(String, String)]) -> Vec<BadRoute> {
    let default = judge(default_route).err();
    let default = default.map(|text| BadRoute { domain: None, text });
    let others = routes.iter().filter_map(|(domain, route)| {
        let text = judge(route).err()?;
        let domain = Some(domain.clone());
        Some(BadRoute { domain, text })
    });
    default.into_iter().chain(others).collect()
}

fn judge(text: &str) -> Result<(), String> {
    let allowed = "allowed: smtp!NEXT-HOP, lmtp!NEXT-HOP, local!, error!TEXT";
    let (channel, host) = text
        .split_once('!')
        .ok_or_else(|| format!("{text:?} is not a route; {allowed}"))?;
    match channel {
        "local" if host.is_empty() || host == "-" => Ok(()),
        "smtp" | "lmtp" => match NextHop::parse(host) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{text:?}: {error}")),
        },
        "error" => Ok(()),
        _ => Err(format!(
            "channel {channel:?} in {text:?} is not known; {allowed}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_routes_are_named() {
        for route in [
            "nowhere",
            "uucp!host",
            "local!host",
            "smtp!",
            "smtp!host:port",
            "smtp![::1",
        ] {
            assert_eq!(bad_routes(route, &[]).len(), 1, "{route}");
        }
        let routes = [
            ("a.example", "smtp!one:25"),
            (".b.example", "smtp!"),
            ("c.example", "error!closed"),
            ("d.example", "local!"),
        ];
        let routes = routes.map(|(domain, route)| (domain.to_owned(), route.to_owned()));
        let bad = bad_routes("lmtp!unix:/run/lmtp", &routes);
        let domains: Vec<Option<&str>> = bad.iter().map(|bad| bad.domain.as_deref()).collect();
        assert_eq!(domains, [Some(".b.example")]);
    }
}
