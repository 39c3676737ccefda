//! The list of a fleet's nodes: whatever text parses is sorted, without doubles, within its
//! limits, and parses to the same nodes when it is written again.

#![no_main]

use fleet::members::{MAX_NODES, MAX_WEIGHT, Members};
use libfuzzer_sys::fuzz_target;
use std::fmt::Write;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(members) = Members::parse(text) else { return };
    let nodes = members.nodes();
    assert!((1..=MAX_NODES).contains(&nodes.len()));
    assert!(nodes.windows(2).all(|pair| pair[0].name < pair[1].name));

    let mut again = String::new();
    for (at, node) in nodes.iter().enumerate() {
        assert!((1..=MAX_WEIGHT).contains(&node.weight));
        assert_eq!(members.find(&node.name).expect("one of them"), (at, node));
        // printable ASCII only, which Rust quotes as TOML does
        let (name, address, zone) = (&node.name, &node.address, &node.zone);
        writeln!(again, "[[node]]\nname = {name:?}\naddress = {address:?}\nzone = {zone:?}").expect("memory");
        writeln!(again, "weight = {}", node.weight).expect("memory");
    }
    assert_eq!(Members::parse(&again).expect("just written").nodes(), nodes);

    let first = &nodes[0];
    assert!(members.of_zone(&first.zone).expect("its own zone").find(&first.name).is_some());
    match members.without(&first.name) {
        Some(rest) => assert_eq!(rest.nodes(), &nodes[1..]),
        None => assert_eq!(nodes.len(), 1),
    }
});
