//! Invocations are served, shared, limited and survive what happens to others.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn privileged_an_invocation_cold_and_warm() {
    let Some(world) = World::new(1) else { return };
    let script = "echo $OWN $_HANDLER $AWS_LAMBDA_FUNCTION_NAME $(id -u) $AWS_LAMBDA_FUNCTION_MEMORY_SIZE";
    let first = world.invoke(script).await;
    assert_eq!(text(&first), "value app.handler f 993 256");
    let second = world.invoke(script).await;
    assert!(first.cold && !second.cold && first.function_error.is_none());
    let stats = world.stats();
    assert_eq!((stats.starts, stats.sandboxes, stats.invocations), (1, 1, 2));
    let failed = world.invoke("echo sorry; exit 3").await;
    assert_eq!(failed.function_error.as_deref(), Some("Unhandled"));
    assert_eq!(text(&failed), r#"{"errorMessage":"sorry\n","errorType":"Unhandled"}"#);
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_many_share_one_sandbox_and_a_burst_starts_no_more_than_it_needs() {
    let Some(world) = World::new(8) else { return };
    let scripts: Vec<String> = (0..20).map(|n| format!("sleep 0.5; echo {n}")).collect();
    let replies = world.many(&world.function, &scripts).await;
    for (n, reply) in replies.iter().enumerate() {
        assert_eq!(text(reply.as_ref().unwrap()), n.to_string(), "everybody got his own answer");
    }
    assert_eq!(world.stats().starts, 3, "20 at once, 8 in each");
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_over_the_deadline_the_sandbox_is_replaced_and_neighbours_finish() {
    let Some(mut world) = World::new(4) else { return };
    world.function.timeout = Duration::from_millis(1500);
    world.invoke("true").await;
    let scripts = ["sleep 100".to_string(), "sleep 1; echo fine".to_string()];
    let replies = world.many(&world.function, &scripts).await;
    let late = replies[0].as_ref().unwrap();
    assert!(text(late).contains("Task timed out after 1.50 seconds"), "{}", text(late));
    assert_eq!(text(replies[1].as_ref().unwrap()), "fine");
    assert!(world.invoke("echo again").await.cold, "in another sandbox");
    let stats = world.stats();
    assert_eq!((stats.timeouts, stats.quarantined, stats.starts), (1, 1, 2));
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_crash_fails_what_was_in_flight_and_nothing_else() {
    let Some(world) = World::new(2) else { return };
    let scripts = ["kill -9 1; kill -9 $PPID; sleep 9".to_string()];
    // process 1 of a sandbox ignores what it does not handle; its end comes from outside
    let replies = world.many(&world.function, &scripts);
    let killer = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let each = world.stats().each;
            if let Some(first) = each.first().filter(|sandbox| sandbox.in_flight == 1) {
                let pids = first.pids.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid));
                for pid in pids {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                return;
            }
        }
    };
    let (replies, ()) = tokio::join!(replies, killer);
    let crashed = replies[0].as_ref().unwrap();
    assert!(text(crashed).contains("Runtime.ExitError"), "{}", text(crashed));
    assert_eq!(text(&world.invoke("echo again").await), "again");
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_what_cannot_start_says_why_and_is_not_tried_without_end() {
    let Some(mut world) = World::new(1) else { return };
    world.function.entrypoint =
        Some(vec!["/bin/sh".into(), "-c".into(), "echo no such luck; sleep 0.3; exit 7".into()]);
    for _ in 0..3 {
        let reply = world.invoke("true").await;
        assert!(text(&reply).contains("Runtime exited: exit status: 7"), "{}", text(&reply));
    }
    let refused = world.try_invoke(&world.function, "true").await.unwrap_err();
    assert!(
        matches!(&refused, InvokeError::Throttled { reason } if reason.contains("starts of the function failed"))
    );
    let lines = world.dispatcher.logs(&world.function.key, 1 << 20);
    assert!(lines.iter().any(|line| line.text == "no such luck"), "{lines:?}");
    world.function.entrypoint = Some(vec!["/no/such/program".into()]);
    world.function.revision = "2".into();
    let reply = world.invoke("true").await;
    assert!(reply.function_error.is_some(), "{}", text(&reply));
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_excess_is_refused_at_once() {
    let change = |settings: &mut DispatcherSettings| {
        settings.most_sandboxes = 1;
        settings.most_waiting = 2;
    };
    let Some(world) = World::with(2, change) else { return };
    world.invoke("true").await;
    let scripts: Vec<String> = (0..10).map(|_| "sleep 1; echo done".to_string()).collect();
    let replies = world.many(&world.function, &scripts).await;
    let served = replies.iter().filter(|reply| reply.is_ok()).count();
    assert_eq!(served, 4, "two run, two wait, the others are told");
    assert_eq!(world.stats().throttled, 6);
    // the one place is another function's as soon as it is idle
    let mut other = world.function.clone();
    other.key.name = "other".into();
    let replies = world.many(&other, &scripts[..1]).await;
    assert!(replies[0].as_ref().is_ok_and(|reply| reply.cold), "{replies:?}");
    assert_eq!(world.stats().sandboxes, 0);
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_idle_sandboxes_go_and_a_new_revision_replaces_the_old() {
    let change = |settings: &mut DispatcherSettings| settings.keep_alive = Duration::from_millis(300);
    let Some(mut world) = World::with(1, change) else { return };
    world.invoke("true").await;
    while world.dispatcher.sandboxes() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(world.invoke("true").await.cold);
    let old = world.function.clone();
    world.function.revision = "2".into();
    world.function.env.insert("OWN".into(), "changed".into());
    world.dispatcher.retire(&old.key, Some("2")).await;
    let reply = world.invoke("echo $OWN").await;
    assert!(reply.cold && text(&reply) == "changed");
    // one that was on its way when the function changed is served, and keeps nobody out
    let late = world.many(&old, &["echo $OWN".to_string()]).await;
    assert!(late[0].as_ref().is_ok_and(|reply| text(reply) != "changed"), "{late:?}");
    assert_eq!(text(&world.invoke("echo $OWN").await), "changed");
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_sandbox_that_asks_for_nothing_more_holds_nobody_up() {
    let change = |settings: &mut DispatcherSettings| settings.init_timeout = Duration::from_secs(5);
    let Some(world) = World::with(1, change) else { return };
    world.invoke("touch /tmp/deaf").await;
    let begun = Instant::now();
    assert!(world.invoke("true").await.cold, "by another sandbox");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    while world.stats().quarantined == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_logs_belong_to_their_invocations() {
    let Some(mut world) = World::new(2) else { return };
    let log = "(echo $REQUEST_ID; echo mine $REQUEST_ID) | nc 127.0.0.1 9002";
    let scripts =
        [format!("{log}; sleep 0.3; echo $REQUEST_ID"), format!("{log}; sleep 0.3; echo $REQUEST_ID")];
    let replies = world.many(&world.function, &scripts).await;
    for reply in replies {
        let reply = reply.unwrap();
        let tail = String::from_utf8_lossy(&reply.log_tail).into_owned();
        let id = text(&reply);
        assert!(tail.starts_with(&format!("START RequestId: {id} ")), "{tail}");
        assert!(tail.contains(&format!("mine {id}\n")) && tail.matches("mine").count() == 1, "{tail}");
        assert!(tail.contains("\nREPORT RequestId: "), "{tail}");
    }
    // what a single invocation prints to the common output is its own, too
    world.function.revision = "2".into();
    let reply = world.invoke("echo common > /proc/1/fd/1; sleep 0.2").await;
    assert!(String::from_utf8_lossy(&reply.log_tail).contains("\ncommon\n"));
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_http_servers_serve_invocations() {
    let Some(mut world) = World::new(1) else { return };
    let server = "mkdir -p /tmp/w/cgi-bin; printf '%s' \"$PROGRAM\" > /tmp/w/cgi-bin/f; chmod +x /tmp/w/cgi-bin/f; exec httpd -f -p 127.0.0.1:$PORT -h /tmp/w";
    world.function.runtime = Runtime::Http { port: 8080, ready_path: None };
    world.function.entrypoint = Some(vec!["/bin/sh".into(), "-c".into(), server.into()]);
    // busybox' server answers POST / from /cgi-bin only; it says so with a status
    world.function.env.insert("PROGRAM".into(), "#!/bin/sh\necho\ncat".into());
    let reply = world.invoke("{}").await;
    assert_eq!(reply.function_error.as_deref(), Some("Unhandled"));
    assert!(text(&reply).contains("Http."), "{}", text(&reply));
    world.shutdown().await;
}
