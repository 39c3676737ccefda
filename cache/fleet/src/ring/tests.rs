//! Placement is the same for everybody, distinct, bounded, spread over zones, and moves little.

use super::distance::{distance, minus_ln, node_seed, partition_seed};
use super::table::{Filling, PARTITIONS, capacities, zone_limits};
use super::*;
use proptest::prelude::*;

fn node(name: &str, zone: &str, weight: u32) -> Node {
    Node { name: name.into(), address: format!("{name}:7400"), zone: zone.into(), weight }
}

/// `count` nodes of weight 1 in `zones` zones in turn; in none if that is 0.
fn fleet(count: usize, zones: usize) -> Vec<Node> {
    let zone = |at: usize| at.checked_rem(zones).map(|zone| format!("z{zone}")).unwrap_or_default();
    (0..count).map(|at| node(&format!("node-{at}"), &zone(at), 1)).collect()
}

fn ring_of(nodes: Vec<Node>, settings: RingSettings) -> Ring {
    Ring::new(Arc::new(Members::new(nodes).unwrap()), settings)
}

fn ring(nodes: Vec<Node>) -> Ring {
    ring_of(nodes, RingSettings::default())
}

/// What every table must be, whatever the fleet; returns the places above the capacities.
fn check(ring: &Ring, settings: RingSettings) -> u32 {
    let nodes = ring.members().nodes();
    let width = settings.width.min(nodes.len());
    for partition in 0..Ring::PARTITIONS {
        let mut places = ring.nodes_of(partition).to_vec();
        assert_eq!(places.len(), width);
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), width, "distinct");
    }
    assert!(ring.nodes_of(Ring::PARTITIONS).is_empty());
    let capacities = capacities(nodes, width, settings.epsilon);
    ring.loads().iter().zip(capacities).map(|(load, most)| load.saturating_sub(most)).sum()
}

/// The most places that a partition has in one zone.
fn crowd(ring: &Ring) -> usize {
    let zone = |place: &u16| &ring.members().nodes()[usize::from(*place)].zone;
    let crowd = |partition| {
        let places = ring.nodes_of(partition);
        places.iter().map(|of| places.iter().filter(|place| zone(place) == zone(of)).count()).max()
    };
    (0..Ring::PARTITIONS).filter_map(crowd).max().unwrap()
}

/// The table by its definition: all pairs sorted, taken one by one.
fn slow_table(nodes: &[Node], settings: RingSettings) -> Vec<u16> {
    let width = settings.width.min(nodes.len());
    let filling = Filling::new(nodes, width, settings.epsilon);
    let mut pairs = Vec::new();
    for partition in 0..Ring::PARTITIONS {
        for (at, node) in nodes.iter().enumerate() {
            let far = distance(node_seed(&node.name), f64::from(node.weight), partition_seed(partition));
            pairs.push((far, partition, at));
        }
    }
    pairs.sort_unstable();
    let mut places = vec![Vec::new(); PARTITIONS];
    let mut loads = vec![0; nodes.len()];
    for (_, partition, at) in pairs {
        let taken: &mut Vec<u16> = &mut places[partition as usize];
        let same = taken.iter().filter(|&&other| nodes[usize::from(other)].zone == nodes[at].zone).count();
        if taken.len() < width
            && loads[at] < filling.capacity[at]
            && same < filling.zone_limit[filling.nodes[at].2]
        {
            taken.push(u16::try_from(at).unwrap());
            loads[at] += 1;
        }
    }
    places.concat()
}

#[test]
fn the_table_is_that_of_its_definition() {
    let mut weighted = fleet(20, 4);
    weighted[7].weight = 2;
    for nodes in [fleet(30, 0), fleet(60, 0), fleet(40, 5), weighted] {
        let ring = ring(nodes);
        let expected = slow_table(ring.members().nodes(), RingSettings::default());
        assert!(ring.table == expected, "differs from the definition");
    }
}

/// Chunks in each partition, of 10^6 names.
fn chunks() -> Vec<u32> {
    let mut chunks = vec![0; PARTITIONS];
    let ring = ring(fleet(5, 0));
    for name in 0..1_000_000_u32 {
        chunks[ring.partition(&ChunkId::of(&name.to_le_bytes())) as usize] += 1;
    }
    chunks
}

#[test]
fn a_million_chunks_are_balanced_over_5_to_50_nodes() {
    let chunks = chunks();
    for count in 5..=50 {
        let ring = ring(fleet(count, 0));
        assert_eq!(check(&ring, RingSettings::default()), 0, "{count} nodes: above capacity");
        let mut loads = vec![0_u32; count];
        for (partition, chunks) in (0..).zip(&chunks) {
            ring.nodes_of(partition).iter().for_each(|&node| loads[usize::from(node)] += chunks);
        }
        let most = f64::from(*loads.iter().max().unwrap());
        let mean = 5_000_000.0 / count as f64;
        assert!(most <= 1.1 * mean, "{count} nodes: {most} shards of {mean}");
    }
}

#[test]
fn a_join_or_leave_moves_little_more_than_its_share() {
    for zones in [0, 3, 5] {
        for count in (zones.max(5)..50).step_by(zones.max(3)) {
            let (before, after) = (ring(fleet(count, zones)), ring(fleet(count + 1, zones)));
            let share = 1.0 / (count + 1) as f64;
            let factors = [after.moved_from(&before) / share, before.moved_from(&after) / share];
            assert!(factors.iter().all(|&factor| factor < 1.25), "{zones} zones, {count} nodes: {factors:?}");
        }
    }
}

#[test]
fn as_many_zones_as_shards_lose_one_shard_with_a_zone() {
    for (count, zones) in [(5, 5), (10, 5), (50, 5), (51, 5), (54, 5), (49, 5), (40, 8), (33, 11)] {
        let ring = ring(fleet(count, zones));
        assert_eq!(crowd(&ring), 1, "{count} nodes in {zones} zones");
        assert_eq!(check(&ring, RingSettings::default()), 0);
    }
    for (count, zones, most) in [(20, 2, 3), (21, 3, 2), (20, 4, 2), (31, 3, 2)] {
        assert_eq!(crowd(&ring(fleet(count, zones))), most, "{count} nodes in {zones} zones");
    }
}

#[test]
fn a_small_zone_is_not_loaded_beyond_its_nodes() {
    let mut nodes = fleet(20, 0);
    nodes[0].zone = "small".into();
    let ring = ring(nodes);
    assert_eq!(check(&ring, RingSettings::default()), 0);
    assert_eq!(crowd(&ring), 5);
}

#[test]
fn weights_are_honoured() {
    let mut nodes = fleet(30, 0);
    for (node, weight) in nodes.iter_mut().zip([1, 2, 3, 4].into_iter().cycle()) {
        node.weight = weight;
    }
    let ring = ring(nodes);
    assert_eq!(check(&ring, RingSettings::default()), 0);
    let total: u32 = ring.members().nodes().iter().map(|node| node.weight).sum();
    for (node, load) in ring.members().nodes().iter().zip(ring.loads()) {
        let fair = 5.0 * f64::from(Ring::PARTITIONS) * f64::from(node.weight) / f64::from(total);
        let ratio = f64::from(load) / fair;
        assert!((0.8..=1.1).contains(&ratio), "weight {}: {ratio} of its share", node.weight);
    }
}

#[test]
fn capacities_fit_what_has_to_be_placed() {
    let all = Ring::PARTITIONS;
    assert_eq!(capacities(&fleet(3, 0), 3, 0.0), [all; 3]);
    assert_eq!(capacities(&fleet(10, 0), 5, 0.0), [all / 2; 10]);
    assert_eq!(capacities(&fleet(10, 0), 5, f64::NAN), [all / 2; 10]);
    assert_eq!(capacities(&fleet(10, 0), 5, f64::INFINITY), [all; 10]);
    assert_eq!(capacities(&fleet(10, 0), 5, 0.1), [9012; 10]);
    let heavy = [node("a", "", 100), node("b", "", 1), node("c", "", 1), node("d", "", 2)];
    assert_eq!(capacities(&heavy, 2, 0.0), [all, all / 4, all / 4, all / 2]);
    assert_eq!(zone_limits(&[], 0), [0; 0]);
}

#[test]
fn distances_are_exponential_and_the_same_everywhere() {
    for at in 1..10_000 {
        let u = f64::from(at) / 10_000.0;
        let error = (minus_ln(u) + u.ln()).abs();
        assert!(error < 1e-12 && minus_ln(u) > 0.0, "{u}: {error}");
    }
    for u in [f64::EPSILON / 2.0, 1.0 - f64::EPSILON / 2.0, 0.5, std::f64::consts::FRAC_1_SQRT_2] {
        let error = (minus_ln(u) + u.ln()).abs();
        assert!(error < 1e-12 && minus_ln(u) > 0.0, "{u}: {error}");
    }
}

#[test]
fn golden_placement() {
    let mut nodes = fleet(12, 4);
    nodes[5].weight = 3;
    let ring = ring(nodes);
    let bytes: Vec<u8> = ring.table.iter().flat_map(|place| place.to_le_bytes()).collect();
    assert_eq!(
        ChunkId::of(&bytes).to_string(),
        "bacdb432672e1ecd895218dbfbfd759a2f6cebf39b8839a7a0c51c618235ae6f"
    );
    let id = ChunkId::of(b"sealed");
    let names: Vec<&str> =
        ring.place(&id).iter().map(|&at| ring.members().nodes()[usize::from(at)].name.as_str()).collect();
    assert_eq!((ring.partition(&id), names), (9108, vec!["node-0", "node-9", "node-5", "node-8", "node-6"]));
}

#[test]
fn a_width_of_nothing_places_nothing() {
    let ring = ring_of(fleet(3, 0), RingSettings { width: 0, epsilon: 0.1 });
    assert!(ring.place(&ChunkId::of(b"sealed")).is_empty());
    assert_eq!(ring.moved_from(&ring).total_cmp(&0.0), std::cmp::Ordering::Equal);
}

fn any_fleet() -> impl Strategy<Value = Vec<Node>> {
    let labels = prop::collection::vec((0_u8..6, 1_u32..20), 1..40);
    let named =
        |(at, (zone, weight)): (usize, (u8, u32))| node(&format!("n{at}"), &format!("z{zone}"), weight);
    labels.prop_map(move |labels| labels.into_iter().enumerate().map(named).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The table is full and, but for very few places of very unequal nodes, within the bound.
    #[test]
    fn any_fleet_is_filled_and_bounded(
        nodes in any_fleet(),
        width in 1_usize..12,
        epsilon in prop::sample::select(vec![0.0, 0.05, 0.1, 0.3]),
    ) {
        let settings = RingSettings { width, epsilon };
        let ring = ring_of(nodes, settings);
        let over = check(&ring, settings);
        let places = u32::try_from(ring.table.len()).unwrap();
        prop_assert!(over <= places / 200, "{over} of {places} places above the capacities");
    }

    #[test]
    fn the_order_of_members_does_not_matter(
        (nodes, shuffled) in any_fleet().prop_flat_map(|nodes| (Just(nodes.clone()), Just(nodes).prop_shuffle()))
    ) {
        let (one, other) = (ring(nodes), ring(shuffled));
        prop_assert!(one.table == other.table);
    }
}
