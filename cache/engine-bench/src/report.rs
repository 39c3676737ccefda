//! The parent: starts a process per engine and scenario, kills what must be killed, and prints
//! medians side by side.

use crate::scenarios::{AGAIN, FILL, FULL_PUTS};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ENGINES: [&str; 4] = ["own", "foyer-insertion", "foyer-eviction", "foyer-uring"];

/// Longest that a scenario may take before it counts as hanging.
const TOO_LONG: Duration = Duration::from_secs(240);
/// The file system that becomes full, and what lies on it already, in MiB.
const DISK_MIB: u64 = 200;
const BALLAST_MIB: u64 = 64;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) rounds: u32,
    pub(crate) directory: PathBuf,
    pub(crate) drop_caches: bool,
}

/// Figures in the order of their first appearance.
#[derive(Debug, Default)]
struct Table {
    names: Vec<String>,
    values: BTreeMap<(String, &'static str), Vec<f64>>,
    notes: Vec<String>,
}

impl Table {
    fn add(&mut self, engine: &'static str, prefix: &str, figures: Vec<(String, f64)>) {
        for (name, value) in figures {
            let name = format!("{prefix}{name}");
            if !self.names.contains(&name) {
                self.names.push(name.clone());
            }
            self.values.entry((name, engine)).or_default().push(value);
        }
    }

    /// Takes what a child said, or notes how it ended.
    fn take(&mut self, engine: &'static str, prefix: &str, result: Result<Vec<(String, f64)>>) {
        match result {
            Ok(figures) => self.add(engine, prefix, figures),
            Err(error) => self.notes.push(format!("{engine}, {prefix}{error:#}")),
        }
    }

    fn print(&mut self) {
        print!("| median (least–most) |");
        ENGINES.iter().for_each(|engine| print!(" {engine} |"));
        println!("\n|---|{}", "---|".repeat(ENGINES.len()));
        for name in &self.names {
            print!("| {name} |");
            for engine in ENGINES {
                let Some(values) = self.values.get_mut(&(name.clone(), engine)) else {
                    print!(" – |");
                    continue;
                };
                values.sort_unstable_by(f64::total_cmp);
                let (least, most) = (values[0], values[values.len() - 1]);
                let median = values[values.len() / 2];
                if (most - least).abs() < 0.005 {
                    print!(" {} |", short(median));
                } else {
                    print!(" {} ({}–{}) |", short(median), short(least), short(most));
                }
            }
            println!();
        }
        self.notes.iter().for_each(|note| println!("{note}"));
    }
}

fn short(value: f64) -> String {
    match value {
        value if value.abs() >= 100.0 => format!("{value:.0}"),
        value if value.abs() >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn start(scenario: &str, engine: &str, directory: &Path, rest: &[&str]) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env("RUST_BACKTRACE", "0").args(["child", scenario, engine]).arg(directory).args(rest);
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// Plays a scenario to its end and reads its figures.
fn play(scenario: &str, engine: &str, directory: &Path, rest: &[&str]) -> Result<Vec<(String, f64)>> {
    let mut child = start(scenario, engine, directory, rest)?;
    let mut errors = child.stderr.take().context("its standard error")?;
    // a child writes less than a pipe holds to its output, but may log without end
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = errors.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() > TOO_LONG {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let errors = errors.join().unwrap_or_default();
    let mut text = String::new();
    child.stdout.take().context("its standard output")?.read_to_string(&mut text)?;
    let first = || errors.lines().find(|line| !line.trim().is_empty()).unwrap_or("").to_string();
    match status {
        None => bail!("{scenario}: hung for {} s; {}", TOO_LONG.as_secs(), first()),
        Some(status) if !status.success() => bail!("{scenario}: {status}; {}", first()),
        Some(_) => {}
    }
    let figures = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('\t')?;
        Some((name.to_string(), value.parse().ok()?))
    });
    Ok(figures.collect())
}

/// Kills a process while it writes; what is there afterwards.
fn killed(engine: &str, directory: &Path) -> Result<Vec<(String, f64)>> {
    let mut child = start("endless", engine, directory, &[])?;
    let output = BufReader::new(child.stdout.take().context("its standard output")?);
    let mut last = 0;
    for line in output.lines() {
        last = line?.parse()?;
        if last >= FILL / 2 {
            break;
        }
    }
    child.kill()?;
    child.wait()?;
    play("open", engine, directory, &["0", &last.to_string()])
}

/// A small file system; unmounted when dropped.
#[derive(Debug)]
struct Disk {
    mounted: PathBuf,
}

impl Disk {
    fn new(directory: &Path) -> Result<Self> {
        let (image, mounted) = (directory.join("image"), directory.join("mounted"));
        std::fs::File::create(&image)?.set_len(DISK_MIB << 20)?;
        std::fs::create_dir(&mounted)?;
        call(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        call(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted))?;
        Ok(Self { mounted })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = call(Command::new("umount").arg(&self.mounted)) {
            eprintln!("{} stays mounted: {error:#}", self.mounted.display());
        }
    }
}

fn call(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A disk much smaller than its budget, and room on it later.
fn full(table: &mut Table, engine: &'static str, scratch: &Path) -> Result<()> {
    let disk = Disk::new(scratch)?;
    let (ballast, directory) = (disk.mounted.join("ballast"), disk.mounted.join("engine"));
    std::fs::write(&ballast, vec![1; usize::try_from(BALLAST_MIB << 20)?])?;
    std::fs::create_dir(&directory)?;
    let played = play("full", engine, &directory, &[&ballast.to_string_lossy()]);
    table.take(engine, "", played);
    let (from, to) = (FULL_PUTS.to_string(), AGAIN.to_string());
    table.take(
        engine,
        "full, room again, reopened: ",
        play("full-survey", engine, &directory, &[&from, &to]),
    );
    Ok(())
}

fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("--drop-caches needs root")
}

/// Every scenario with every engine, as often as asked.
fn run_all(options: &Options, table: &mut Table) -> Result<()> {
    for round in 1..=options.rounds {
        for engine in ENGINES {
            eprintln!("round {round}, {engine}");
            for scenario in ["speed", "zipf", "burst"] {
                let scratch = tempfile::tempdir_in(&options.directory)?;
                table.take(engine, "", play(scenario, engine, scratch.path(), &[]));
            }
            let scratch = tempfile::tempdir_in(&options.directory)?;
            table.take(engine, "", play("leave", engine, scratch.path(), &[]));
            let all = ["0", &FILL.to_string()];
            table.take(engine, "restart: ", play("open", engine, scratch.path(), &all));
            if options.drop_caches && round == options.rounds {
                drop_caches()?;
                table.take(engine, "restart, cold: ", play("open", engine, scratch.path(), &all));
            }
            let scratch = tempfile::tempdir_in(&options.directory)?;
            table.take(engine, "kill -9: ", killed(engine, scratch.path()));
            let scratch = tempfile::tempdir_in(&options.directory)?;
            if let Err(error) = full(table, engine, scratch.path()) {
                table.notes.push(format!("{engine}, no full disk: {error:#}"));
            }
        }
    }
    Ok(())
}

/// Runs everything and prints the table, of what there is if something fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut table = Table::default();
    let done = run_all(options, &mut table);
    table.print();
    done
}
