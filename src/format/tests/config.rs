use super::super::config::{Chunking, Config, StoreFacts};
use super::super::testing::{
    assert_bytes, documented_bytes, every_flip_is_refused, every_truncation_is_corrupt, fix_checksum, set_u32,
};
use super::golden::CONFIG;
use super::{assert_corrupt, assert_unsupported};
use crate::clock::Timestamp;
use crate::id::{FamilyId, RepositoryId};

const HEADER: usize = 20;

fn sample() -> Config {
    Config {
        repository: RepositoryId::from_bytes([0x11; 16]),
        family: FamilyId::from_bytes([0x22; 16]),
        created: Timestamp::from_nanos(1_700_000_000_000_000_000),
        mandatory_features: Vec::new(),
        optional_features: vec!["deep".into()],
        chunking: Chunking::default(),
        pack_target: 32 << 20,
        level: 1,
        store: StoreFacts {
            create_only: true,
            create_race_safe: true,
            range_reads: true,
            list_offset: true,
            single_writer: false,
        },
        tool: "everpack 0.1.0".into(),
    }
}

/// Appends bytes to the body and makes all lengths and checksums fit.
fn grown(more: &[u8]) -> Vec<u8> {
    let mut stored = CONFIG[..CONFIG.len() - 4].to_vec();
    stored.extend_from_slice(more);
    let body_len = stored.len() - HEADER;
    stored.extend_from_slice(&[0; 4]);
    set_u32(&mut stored, 12, body_len);
    fix_checksum(&mut stored, 0..16, 16);
    let end = stored.len();
    fix_checksum(&mut stored, HEADER..end - 4, end - 4);
    stored
}

#[test]
fn stored_bytes_have_not_changed() {
    assert_bytes(&sample().encode(), &CONFIG, "encoded");
    assert_eq!(Config::decode(&CONFIG).unwrap(), sample());
    assert_bytes(&documented_bytes(include_str!("../../../docs/format/config.md"), "config"), &CONFIG, "page");
}

#[test]
fn damage_is_refused() {
    every_truncation_is_corrupt(&CONFIG, Config::decode);
    every_flip_is_refused(&CONFIG, Config::decode);
    assert_corrupt(Config::decode(&[&CONFIG[..], &[0]].concat()), "1 bytes too many");
}

#[test]
fn a_longer_body_is_read_by_its_known_beginning() {
    assert_eq!(Config::decode(&grown(b"what a later release knows")).unwrap(), sample());
}

#[test]
fn an_unknown_mandatory_feature_is_refused_by_name() {
    let mut config = sample();
    config.mandatory_features = vec!["encryption".into()];
    assert_unsupported(Config::decode(&config.encode()), "\"encryption\"");
}

#[test]
fn a_newer_version_and_unknown_flags_are_refused_by_name() {
    let mut stored = CONFIG;
    stored[8] = 2;
    assert_unsupported(Config::decode(&stored), "format version 2");
    let mut stored = CONFIG;
    stored[10] = 1;
    assert_unsupported(Config::decode(&stored), "\"encryption\"");
    stored[10] = 4;
    assert_unsupported(Config::decode(&stored), "0x0004");
}

#[test]
fn parameters_that_a_chunker_cannot_take_are_refused() {
    let refuse = |change: fn(&mut Config)| {
        let mut config = sample();
        change(&mut config);
        assert_corrupt(Config::decode(&config.encode()), "out of range");
    };
    refuse(|config| config.chunking.tae_average = 40_000);
    refuse(|config| config.chunking.tae_average = 8 << 20);
    refuse(|config| config.chunking.tae_average = 0);
    refuse(|config| config.chunking.cdc_least = 0);
    refuse(|config| config.chunking.cdc_least = 2 << 20);
    refuse(|config| config.chunking.cdc_average = 128 << 10);
    // FastCDC would index past its table of masks.
    refuse(|config| (config.chunking.cdc_average, config.chunking.cdc_most) = (16 << 20, 16 << 20));
    refuse(|config| config.chunking.cdc_most = 32 << 20);
    refuse(|config| config.chunking.cdc_most = (4 << 20) + 1);
    refuse(|config| config.chunking.page = 1);
    refuse(|config| config.chunking.page = u32::MAX);
    refuse(|config| config.pack_target = u32::MAX);
    refuse(|config| config.level = 23);
}

#[test]
fn a_hostile_count_allocates_nothing() {
    // The count of mandatory features, at body offset 72.
    let mut stored = CONFIG.to_vec();
    set_u32(&mut stored, HEADER + 72, u32::MAX as usize);
    let end = stored.len();
    fix_checksum(&mut stored, HEADER..end - 4, end - 4);
    assert_corrupt(Config::decode(&stored), "mandatory features: 4294967295");
}
