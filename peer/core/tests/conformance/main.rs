//! Plays `proto/conformance/relay.json`: what a relay engine must do, as data. The engine for browsers plays the same
//! file (`web/client/test/conformance.test.ts`), so that the two cannot drift apart.
//!
//! With `ESPALIER_CONFORMANCE=write` the file is written anew from the cases of `cases.rs` and what this engine does.

mod cases;
mod replay;

use std::path::PathBuf;

use serde_json::Value;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto/conformance/relay.json")
}

#[test]
fn the_engine_does_what_the_suite_says() {
    if std::env::var("ESPALIER_CONFORMANCE").is_ok_and(|mode| mode == "write") {
        let written = replay::fill(cases::all());
        let text = serde_json::to_string_pretty(&written).expect("JSON");
        std::fs::write(path(), text + "\n").expect("written");
    }
    let text = std::fs::read_to_string(path()).expect("the suite");
    let suite: Value = serde_json::from_str(&text).expect("JSON");
    let cases = suite["cases"].as_array().expect("cases");
    assert!(cases.len() >= 10, "{} cases", cases.len());
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        let outputs = replay::play(&suite, case);
        for (step, outputs) in case["steps"].as_array().expect("steps").iter().zip(outputs) {
            assert_eq!(step["expect"], Value::from(outputs), "{name}: {step}");
        }
    }
}

#[test]
fn the_suite_is_what_the_cases_say() {
    let text = std::fs::read_to_string(path()).expect("the suite");
    let suite: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(suite, replay::fill(cases::all()));
}
