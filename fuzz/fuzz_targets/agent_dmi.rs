//! SMBIOS tables and archive paths of the agent: any bytes, no panic, nothing outside the work directory.
#![no_main]

use std::path::{Component, Path};

use agent::inventory::dmi::{Dmi, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dmi = Dmi {
        structures: parse(data),
        version: (3, 0),
    };
    assert!(dmi.uuid().is_none_or(|u| u.len() == 36));
    assert!(dmi.memory_size() != Some(0));
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(place) = agent::scripts::bundle::place(Path::new(text))
    {
        assert!(
            place
                .components()
                .all(|c| matches!(c, Component::Normal(_)))
        );
    }
});
