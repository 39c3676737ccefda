//! Memory decides how many share a sandbox, and how many sandboxes there are.

use super::*;

/// A client that holds 7 MiB for each slot that it is told of, from its start on.
fn heavy() -> Function {
    let fill = "dd if=/dev/zero of=/dev/shm/held bs=1M count=$((7 * AWS_LAMBDA_MAX_CONCURRENCY)) 2>/dev/null";
    let mut heavy = function("heavy", 8);
    heavy.entrypoint = Some(["/bin/sh", "-c"].map(String::from).to_vec());
    heavy.command = Some(vec![format!("{fill}; exec /bin/sh /runtime.sh")]);
    heavy.memory_bytes = Some(61 << 20);
    heavy
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_client_that_pays_for_its_slots_ahead_is_told_of_as_many_as_fit() {
    let Some(mut world) = World::new(8) else { return };
    world.function = heavy();
    let reply = world.invoke("sleep 1; echo $AWS_LAMBDA_MAX_CONCURRENCY").await;
    assert_eq!(text(&reply), "8");
    while world.stats().quarantined == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // 40 at once go by five
    let scripts = vec!["sleep 1; echo $AWS_LAMBDA_MAX_CONCURRENCY".to_string(); 40];
    for reply in world.many(&world.function, &scripts).await {
        assert_eq!(text(&reply.unwrap()), "5");
    }
    let stats = world.stats();
    assert_eq!(
        (stats.concurrency_limit, stats.starts),
        (5, 9),
        "one of eight slots, eight of five: {stats:?}"
    );
    let said = world.dispatcher.logs(&world.function.key, 1 << 20);
    assert!(said.iter().any(|line| line.text.contains("told of 8 slots")), "{:?}", said.last());
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_memory_of_sandboxes_that_start_is_not_given_to_others_too() {
    let Some(world) = World::with(1, |settings| settings.memory_bytes = 100 << 20) else { return };
    let hold = "dd if=/dev/zero of=/tmp/held bs=1M count=15 2>/dev/null; sleep 1";
    // it teaches what an invocation needs
    world.invoke(hold).await;
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (dispatcher, function) = (world.dispatcher.clone(), Arc::new(world.function.clone()));
            let invocation = Invocation::new(format!("{hold}00"));
            tokio::spawn(async move { dispatcher.invoke(function, invocation).await })
        })
        .collect();
    let mut quiet = 0;
    while quiet < 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let stats = world.stats();
        quiet = if stats.in_flight > 2 && stats.starting == 0 { quiet + 1 } else { 0 };
        // one more than fit: the first one's file is written anew, so that it is small for a moment
        assert!(stats.each.len() <= 7, "sandboxes of 15 MiB and more in 100 MiB: {stats:?}");
    }
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_who_is_killed_for_all_together_is_not_blamed() {
    let Some(mut world) = World::with(4, |settings| settings.memory_bytes = 128 << 20) else { return };
    world.function.memory_bytes = Some(512 << 20);
    let reply = world.invoke("dd if=/dev/zero of=/dev/null bs=300M count=1; sleep 1; exit 1").await;
    assert!(reply.function_error.is_some(), "{}", text(&reply));
    let logged = |words: &str| {
        let lines = world.dispatcher.logs(&world.function.key, 1 << 20);
        lines.iter().any(|line| line.text.contains(words))
    };
    assert!(logged("this worker ran out of memory") && !logged("at its memory limit"));
    world.shutdown().await;
}
