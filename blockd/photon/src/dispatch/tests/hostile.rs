//! What a hostile handler can reach, use and break: nothing but its own sandbox.

use super::*;

async fn denied(world: &World, script: &str) {
    let reply = world.invoke(script).await;
    assert!(reply.function_error.is_some(), "{script}: {}", text(&reply));
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_nothing_of_the_host_is_seen() {
    let Some(world) = World::new(1) else { return };
    let secret = world.dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    for script in [
        format!("cat {}", secret.display()),
        "cat /etc/shadow".into(),
        "ls /root".into(),
        "ls /run/lantern".into(),
        "touch /x".into(),
        "touch /proc/sys/kernel/hostname".into(),
        "mount -t tmpfs x /tmp".into(),
        "mknod /tmp/d b 8 0".into(),
        "chroot / true".into(),
        "unshare -U true".into(),
        "cat /proc/kcore | head -c 1 | grep -q .".into(),
        "dmesg".into(),
        "ping -c1 127.0.0.1".into(),
        "wget -T 2 -O- http://10.0.0.1/".into(),
        "grep -q LANTERN_STORE /proc/1/environ".into(),
        "ls -l /proc/1/fd | grep -q blockd.sock".into(),
    ] {
        denied(&world, &script).await;
    }
    let seen = text(&world.invoke("ls /proc | grep -c '^[0-9]'").await);
    assert!(seen.parse::<u32>().unwrap() < 12, "{seen} processes: only its own");
    assert_eq!(text(&world.invoke("ls /sys/class/net").await), "lo");
    // the host ends sandboxes before the worker
    assert_eq!(text(&world.invoke("cat /proc/self/oom_score_adj").await), "500");
    let capabilities = text(&world.invoke("grep -E 'Cap(Eff|Prm|Bnd|Amb)' /proc/self/status").await);
    assert!(capabilities.lines().all(|line| line.ends_with("0000000000000000")), "{capabilities}");
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_limits_hold_and_only_the_guilty_suffer() {
    let Some(world) = World::new(1) else { return };
    let mut bystander = function("bystander", 1);
    bystander.timeout = Duration::from_secs(5);
    let victim = world.try_invoke(&bystander, "echo before").await.unwrap();
    assert_eq!(text(&victim), "before");
    let disk = world
        .invoke("dd if=/dev/zero of=/tmp/big bs=1M count=64 2>/dev/shm/said; rm /tmp/big; cat /dev/shm/said")
        .await;
    assert!(text(&disk).contains("No space left"), "{}", text(&disk));
    let mut greedy = world.function.clone();
    greedy.memory_bytes = Some(32 << 20);
    greedy.revision = "memory".into();
    let memory = world.try_invoke(&greedy, "x=x; while true; do x=$x$x; done").await.unwrap();
    assert!(memory.function_error.is_some(), "{}", text(&memory));
    let mut bomb = world.function.clone();
    bomb.revision = "bomb".into();
    bomb.timeout = Duration::from_secs(2);
    let forked = world.try_invoke(&bomb, "b() { b | b & b; }; b").await.unwrap();
    assert!(forked.function_error.is_some());
    let mut spin = world.function.clone();
    spin.revision = "spin".into();
    spin.timeout = Duration::from_secs(1);
    spin.cpu_millis = Some(200);
    let spun = world.try_invoke(&spin, "while true; do :; done").await.unwrap();
    assert!(text(&spun).contains("timed out"));
    let after = world.try_invoke(&bystander, "echo after").await.unwrap();
    assert!(!after.cold && text(&after) == "after", "the neighbour's sandbox is what it was");
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_answers_cannot_be_forged() {
    let Some(world) = World::new(1) else { return };
    let api = "http://127.0.0.1:9001/2018-06-01/runtime/invocation";
    let forged = format!(
        "wget -S -q -O- --post-data '\"forged\"' {api}/00000000-0000-4000-8000-000000000000/response 2>&1 | grep HTTP"
    );
    assert!(text(&world.invoke(&forged).await).contains("400"));
    // another tenant's invocation, by its true id
    let mut other = function("g", 1);
    other.key.tenant = "other".into();
    let publish = "echo $REQUEST_ID > /tmp/id; sleep 2; echo honest";
    let victim = {
        let (dispatcher, other) = (world.dispatcher.clone(), Arc::new(other.clone()));
        let invocation = Invocation::new(publish.to_string());
        let id = invocation.request_id.clone();
        (id, tokio::spawn(async move { dispatcher.invoke(other, invocation).await }))
    };
    while world.dispatcher.stats(&other.key).in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let attack =
        format!("wget -S -q -O- --post-data '\"forged\"' {api}/{}/response 2>&1 | grep HTTP", victim.0);
    assert!(text(&world.invoke(&attack).await).contains("400"), "another sandbox's id means nothing here");
    assert_eq!(text(&victim.1.await.unwrap().unwrap()), "honest");
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_what_a_handler_says_of_itself_is_bounded_and_in_its_time() {
    let Some(world) = World::new(1) else { return };
    let base = "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime";
    // too large an error is an error all the same, and its caller hears of it at once
    let large = format!(
        "yes | head -c 7000000 >/tmp/large; \
         wget -q -O /dev/null --post-file /tmp/large {base}/invocation/$REQUEST_ID/error; sleep 1"
    );
    let reply = world.invoke(&large).await;
    assert!(reply.function_error.is_some() && text(&reply).contains("larger than"), "{}", text(&reply));
    // the start is over: a handler cannot make it fail any more
    let late = format!("wget -q -O /dev/null --post-data x {base}/init/error");
    denied(&world, &late).await;
    assert_eq!(text(&world.invoke("echo still here").await), "still here");
    assert_eq!(world.stats().starts, 1);
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_process_named_by_its_number_is_the_one_that_ends() {
    let Some(mut world) = World::new(2) else { return };
    world.function.timeout = Duration::from_secs(3);
    let next = "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next";
    // takes the next invocation in the name of a process, closes the connection and answers nothing
    let taking = |number: &str, then: &str| {
        format!(
            "sleep 1000 >/dev/null 2>&1 & echo $! >/tmp/pid; \
             (sleep 0.5; wget -q -O /dev/null --header \"Lantern-Photon-Pid: {number}\" {next}; {then}) \
             >/dev/null 2>&1 & echo taking"
        )
    };
    let lives = "grep -c 'State:.[RS]' /proc/$(cat /tmp/pid)/status; true";
    let wait = || tokio::time::sleep(Duration::from_millis(1000));
    assert_eq!(text(&world.invoke(&taking("$(cat /tmp/pid)", "true")).await), "taking");
    wait().await;
    let late = world.invoke("true").await;
    assert!(text(&late).contains("timed out"), "its connection was its to close: {}", text(&late));
    assert_ne!(text(&world.invoke(lives).await), "1", "it was killed");
    assert_eq!(text(&world.invoke(&taking("$(cat /tmp/pid)", "kill $(cat /tmp/pid)")).await), "taking");
    wait().await;
    let ended = world.invoke("true").await;
    assert!(text(&ended).contains("Runtime.ExitError"), "{}", text(&ended));
    // a number that is not in this sandbox names nobody
    assert_eq!(text(&world.invoke(&taking("99999", "true")).await), "taking");
    wait().await;
    let unknown = world.invoke("true").await;
    assert!(text(&unknown).contains("Runtime.ExitError"), "{}", text(&unknown));
    assert_eq!((world.stats().starts, world.stats().quarantined), (1, 0), "nothing else came to harm");
    world.shutdown().await;
}
