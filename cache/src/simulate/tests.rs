//! What a simulated fleet must show: the same for the same seed, no loss by one node or zone,
//! recovery from an empty cache under the limits, and the collapse without them.

use super::*;
use crate::policy::PolicyKind;

/// A small fleet under starts all the time: no sandbox is used twice.
fn fleet() -> Scenario {
    let text = "
        [run]
        duration_s = 100.0
        warm_up_s = 15.0
        [fleet]
        workers = 40
        nodes = 10
        worker_bytes = 134217728
        node_bytes = 1073741824
        leave_after_s = 0.0
        [images]
        bases = 10
        base_chunks = 12
        own_chunks_min = 4
        own_chunks_max = 12
        [load]
        functions = 400
        invocations_per_s = 160.0
        keep_alive_s = 0.0
        cron_functions = 40
        cron_period_s = 50.0
        [times]
        chunk_deadline_ms = 2000.0
        [origin]
        requests_per_s = 1000.0
        [limits]
        starts_per_worker = 2
        origin_per_worker = 1
    ";
    toml::from_str(text).unwrap()
}

fn with(at_s: f64, what: What) -> Scenario {
    Scenario { events: vec![Event { at_s, what }], ..fleet() }
}

fn outcome(scenario: &Scenario) -> Outcome {
    run(scenario).unwrap()
}

/// The part of reads beyond the worker that the nodes served, before and after the event.
fn nodes_rates(outcome: &Outcome) -> (f64, f64) {
    let [_, steady, after] = &outcome.phases[..] else { panic!("three phases") };
    (steady.reads.nodes_rate(), after.reads.nodes_rate())
}

#[test]
fn the_seed_decides_everything() {
    let mut scenario = with(40.0, What::Wipe);
    scenario.run.duration_s = 60.0;
    let first = outcome(&scenario);
    let text = |outcome: &Outcome| serde_json::to_string(outcome).unwrap();
    assert_eq!(text(&first), text(&outcome(&scenario)));
    scenario.run.seed = 2;
    assert_ne!(first.series, outcome(&scenario).series);
}

#[test]
fn reads_and_starts_add_up() {
    let outcome = outcome(&fleet());
    let (mut reads, mut starts) = (Reads::default(), Starts::default());
    for phase in &outcome.phases {
        reads.add(&phase.reads);
        starts.asked += phase.starts.asked;
        starts.completed += phase.starts.completed;
        starts.rejected += phase.starts.unsuccessful();
        assert_eq!(phase.starts.asked + phase.starts.reused, phase.starts.invocations + phase.starts.retried);
    }
    assert!(starts.asked - starts.completed - starts.rejected < 40, "{starts:?}");
    assert!(reads.total() >= starts.completed * 16, "{reads:?} {starts:?}");
    let mut of_points = Reads::default();
    outcome.series.iter().for_each(|point| of_points.add(&point.reads));
    assert!(reads.total() - of_points.total() < 1000, "all but what came in the last moment");
    let steady = &outcome.phases[1];
    assert!(steady.start_ms.p50_ms > 50.0 && steady.start_ms.p99_ms < 100.0, "{:?}", steady.start_ms);
    assert!(steady.nodes_ms.p50_ms > 1.1 && steady.nodes_ms.p50_ms < 2.0, "{:?}", steady.nodes_ms);
}

#[test]
fn a_lost_node_costs_no_hits() {
    let (before, after) = nodes_rates(&outcome(&with(50.0, What::LoseNode(3))));
    assert!(before > 0.99 && after > before - 0.005, "{before} {after}");
}

#[test]
fn a_node_that_leaves_the_list_costs_few() {
    // its places go to others, and with them, by the bound on loads, some places of others: a
    // chunk that loses two shards so is read from the origin once
    let mut scenario = with(50.0, What::LoseNode(3));
    (scenario.fleet.leave_after_s, scenario.fleet.nodes) = (10.0, 50);
    let (before, after) = nodes_rates(&outcome(&scenario));
    assert!(before > 0.99 && after > before - 0.01, "{before} {after}");
}

#[test]
fn a_single_copy_would_cost_hits() {
    let mut scenario = with(50.0, What::LoseNode(3));
    (scenario.fleet.data, scenario.fleet.parity) = (1, 0);
    let (before, after) = nodes_rates(&outcome(&scenario));
    assert!(before > 0.99 && after < before - 0.05, "a tenth of the chunks is lost: {before} {after}");
}

#[test]
fn a_lost_zone_costs_no_hits_where_no_zone_has_two_shards() {
    let (before, after) = nodes_rates(&outcome(&with(50.0, What::LoseZone(2))));
    assert!(before > 0.99 && after > before - 0.005, "{before} {after}");
    let mut three = with(50.0, What::LoseZone(2));
    three.fleet.zones = 3;
    let (before, after) = nodes_rates(&outcome(&three));
    assert!(before > 0.99 && after < before - 0.1, "with 3 zones it does: {before} {after}");
}

#[test]
fn nodes_that_join_move_few_chunks() {
    let (before, after) = nodes_rates(&outcome(&with(50.0, What::AddNodes(1))));
    assert!(before > 0.99 && after > before - 0.01, "{before} {after}");
}

#[test]
fn an_empty_cache_fills_again_under_the_limits_and_never_without() {
    let mut scenario = with(30.0, What::Wipe);
    (scenario.images.bases, scenario.images.base_chunks) = (20, 24);
    (scenario.times.window, scenario.times.chunk_deadline_ms) = (8, 1000.0);
    let limited = outcome(&scenario);
    let wiped = &limited.phases[2];
    let recovery = &limited.recoveries[0];
    let after = recovery.hits_after_s.expect("it recovers");
    assert!(after <= 30.0, "after {after} s");
    assert!(recovery.starts_after_s.is_some());
    assert!(wiped.starts.rejected > 0, "what is too much is rejected: {:?}", wiped.starts);
    assert!(1000 * wiped.starts.failed < wiped.starts.asked, "what is begun succeeds: {:?}", wiped.starts);
    assert!(
        f64::from(wiped.origin_max_per_s) <= scenario.origin.requests_per_s,
        "{}",
        wiped.origin_max_per_s
    );

    scenario.limits = Limits { starts_per_worker: 0, origin_per_worker: 0 };
    let unlimited = outcome(&scenario);
    let (before, wiped) = (&unlimited.phases[1], &unlimited.phases[2]);
    assert!(before.reads.hit_rate() > 0.99, "it was well before: {}", before.reads.hit_rate());
    let recovery = &unlimited.recoveries[0];
    assert_eq!(
        (recovery.hits_after_s, recovery.starts_after_s),
        (None, None),
        "no recovery in the same time"
    );
    assert!(f64::from(wiped.origin_max_per_s) > 1.5 * scenario.origin.requests_per_s);
    let last = &unlimited.series[unlimited.series.len() - 20..];
    let (asked, lost) = last.iter().fold((0, 0), |(asked, lost), point| {
        (asked + point.starts.asked, lost + point.starts.unsuccessful())
    });
    assert!(2 * lost > asked, "most starts still fail a minute later: {lost} of {asked}");
}

#[test]
fn a_storm_of_cron_functions_hurts_lru_nodes() {
    let rate = |policy| {
        let mut scenario = fleet();
        (scenario.load.cron_functions, scenario.load.cron_period_s) = (1000, 10.0);
        scenario.load.cron_spread_s = 10.0;
        // room for a third of what the functions in use all the time read
        scenario.fleet.node_bytes = 32 << 20;
        scenario.fleet.worker_bytes = 32 << 20;
        scenario.fleet.worker_policy = policy;
        scenario.fleet.node_policy = policy;
        scenario.limits = Limits { starts_per_worker: 0, origin_per_worker: 0 };
        scenario.origin.requests_per_s = 1e6;
        scenario.run.duration_s = 35.0;
        outcome(&scenario).phases[1].reads.hit_rate()
    };
    let (lru, s3_fifo) = (rate(PolicyKind::Lru), rate(PolicyKind::S3Fifo));
    assert!(s3_fifo > lru + 0.03, "{lru} {s3_fifo}");
}

#[test]
fn workers_without_nodes_go_to_the_origin() {
    let mut scenario = fleet();
    scenario.fleet.nodes = 0;
    scenario.run.duration_s = 30.0;
    let outcome = outcome(&scenario);
    assert!(outcome.nodes.is_none());
    assert!(outcome.phases.iter().all(|phase| phase.reads.nodes == 0));
    assert!(outcome.phases[1].reads.origin > 0);
}

#[test]
fn a_trace_is_replayed() {
    let mut text = String::from("app,func,end_timestamp,duration\n");
    for n in 0..200 {
        text.push_str(&format!("a,f{},{}.5,1.5\n", n % 7, 10 + n / 2));
    }
    let trace = Trace::read(text.as_bytes()).unwrap();
    let mut scenario = fleet();
    scenario.replay.copies = 5;
    let outcome = run_trace(&scenario, trace.clone()).unwrap();
    let invocations: u64 = outcome.phases.iter().map(|phase| phase.starts.invocations).sum();
    assert_eq!(invocations, 1000);
    scenario.replay.copies = 60_000;
    assert!(run_trace(&scenario, trace).unwrap_err().to_string().contains("replay fewer"));
}

#[test]
fn what_is_no_scenario_is_named() {
    for (text, says) in [
        ("[fleet]\nworker = 1", "unknown field `worker`"),
        ("[[events]]\nat_s = 1\nwhat = 'burn'", "unknown variant"),
        ("[fleet]\nworkers = 0", "fleet.workers = 0: 1 to 20,000"),
        ("[fleet]\nnodes = 4", "fleet.nodes = 4"),
        ("[fleet]\ndata = 0", "fleet.data = 0+1"),
        ("[run]\nduration_s = nan", "run.duration_s = NaN"),
        ("[run]\nbucket_s = 0.001", "run.bucket_s"),
        ("[load]\nrun_p99_s = 0.1", "load.run_p99_s"),
        ("[fleet]\nslots = 9999\nworkers = 9999", "fleet.slots = 99980001"),
        ("[load]\ncron_functions = 1000000\ncron_period_s = 0.001\ncron_spread_s = 0", "load.invocations"),
        ("[images]\nown_chunks_max = 20000", "images.own_chunks_max = "),
        ("[[events]]\nat_s = 1\nwhat = { lose-zone = 9 }", "events.lose-zone = 9"),
        ("[[events]]\nat_s = 1e9\nwhat = 'wipe'", "events.at_s"),
        ("[fleet]\nworkers = 20000\nworker_bytes = 99999999999", "fleet.workers = "),
    ] {
        let error = match toml::from_str::<Scenario>(text) {
            Ok(scenario) => run(&scenario).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(says), "{text}: {error}");
    }
    let default = Scenario::default();
    default.check().unwrap();
    assert_eq!(toml::from_str::<Scenario>(&toml::to_string(&default).unwrap()).unwrap(), default);
}

/// The scenarios of docs/capacity.md are accepted, and what is in them is not the default.
#[test]
fn the_documented_scenarios_are_scenarios() {
    let page = include_str!("../../../docs/capacity.md");
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let scenario: Scenario = toml::from_str(block).unwrap();
        scenario.check().unwrap();
        assert_ne!(scenario, Scenario::default());
    }
}

#[test]
fn the_command_line_changes_the_scenario() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }
    let parse = |line: &str| <Line as clap::Parser>::try_parse_from(line.split(' ')).map(|line| line.args);
    let args =
        parse("x --workers 7 --node-bytes 2G --lose-zone 1@20 --wipe-at 10 --no-limit --seed 9").unwrap();
    let scenario = args.scenario().unwrap();
    assert_eq!((scenario.fleet.workers, scenario.fleet.node_bytes, scenario.run.seed), (7, 2 << 30, 9));
    let events: Vec<What> = scenario.events.iter().map(|event| event.what).collect();
    assert_eq!(events, [What::Wipe, What::LoseZone(1)]);
    assert_eq!(scenario.limits, Limits { starts_per_worker: 0, origin_per_worker: 0 });
    for line in ["x --lose-zone 1", "x --lose-node a@3", "x --copies 2", "x --node-bytes lots"] {
        assert!(parse(line).is_err(), "{line}");
    }
    let error = parse("x --workers 0").unwrap().scenario().unwrap_err();
    assert!(error.to_string().contains("fleet.workers"), "{error}");
}

#[test]
fn tables_and_plots_show_what_was_found() {
    let mut scenario = with(20.0, What::Wipe);
    scenario.run.duration_s = 30.0;
    let outcome = outcome(&scenario);
    let table = table(&outcome);
    for part in ["warm-up", "steady", "wipe at 20 s: 99 % hits", "40 workers, 10 nodes in 5 zones (4+1)"] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plot.svg");
    plot(&outcome, &path).unwrap();
    let svg = std::fs::read_to_string(&path).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("origin requests per second") && svg.matches("<polyline").count() >= 6);
    assert!(plot(&outcome, directory.path()).unwrap_err().to_string().contains("cannot write the plot"));
}
