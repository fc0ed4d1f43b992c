//! The scenarios of `loadgen/scenarios/`, in the program so that `--all` needs no source tree.

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../scenarios/", $name)))),*]
    };
}

/// Name and text of each file.
pub(super) const FILES: &[(&str, &str)] = files![
    "relay.toml",
    "list.toml",
    "large.toml",
    "slow-hop.toml",
    "dead-hop.toml",
    "refusing-hop.toml",
    "new-connection.toml",
    "idle-crowd.toml",
];

#[cfg(test)]
mod tests {
    use super::FILES;
    use crate::scenario::file::Scenario;

    #[test]
    fn every_file_of_the_directory_is_built_in_and_can_be_read() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut found: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        let mut known: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        found.sort();
        known.sort_unstable();
        assert_eq!(found, known);
        for (name, text) in FILES {
            let scenario = Scenario::parse(name, text).unwrap();
            assert!(!scenario.description.is_empty());
        }
    }
}
