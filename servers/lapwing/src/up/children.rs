//! The servers' processes: started, watched, started again, stopped on wish.
//!
//! Not here: what they are told to do. Invariants: a process that ends by itself is started again
//! after a pause that grows while it keeps ending; one that an operator stopped stays so; each
//! process holds the other end of a pipe, so that none outlives a killed `up`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lapwing_net::runtime::Executor;
use lapwing_protocol::registration::ServerRole;
use lapwing_protocol::supervision::{ChildState, ChildWish};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use smol::Timer;
use smol::channel::{Receiver, Sender};
use smol::process::{Child, Command, Stdio};

/// The first pause before a process that ended is started again; it doubles up to the last.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// See [`PAUSE_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The longest pause of one that had answered: its sensors wait for it, and a server that starts
/// well and is killed again and again is no reason for them to look for another.
const PAUSE_ANSWERED_MAX: Duration = Duration::from_secs(1);
/// A process that lived this long begins with the first pause again.
const LIVED: Duration = Duration::from_secs(20);
/// Heaps that the C library keeps: as it comes one for each thread, and what thousands of short
/// connections leave behind in each is a third of a server's memory.
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");
/// How long a process may take to end in good order; then it is killed.
const DRAIN: Duration = Duration::from_secs(20);
/// A log longer than this is moved aside (one old file is kept) when its process starts: 16 MiB.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// What is to be run, and where its words go.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) name: String,
    /// None for the sensor.
    pub(super) role: Option<ServerRole>,
    pub(super) executable: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) log: PathBuf,
}

/// One child, as it is now.
#[derive(Clone, Debug)]
pub(super) struct ChildStatus {
    pub(super) program: Program,
    pub(super) state: ChildState,
    pub(super) pid: Option<u32>,
    pub(super) starts: u32,
    pub(super) ending: String,
}

struct Order {
    wish: ChildWish,
    done: Sender<Result<(), String>>,
}

struct Entry {
    status: ChildStatus,
    orders: Sender<Order>,
}

/// All children. Clone it freely.
#[derive(Clone, Default)]
pub(super) struct Children(Arc<Shared>);

#[derive(Default)]
struct Shared {
    entry_by_name: Mutex<BTreeMap<String, Entry>>,
    /// Woken when a process starts or ends.
    listeners: Mutex<Vec<Sender<()>>>,
}

/// What a running process is waited for.
enum Event {
    Ended(std::io::Result<ExitStatus>),
    Ordered(Order),
    Closed,
}

impl Children {
    /// Starts a program and keeps it running.
    pub(super) fn start(&self, executor: &Executor, program: Program) {
        let (orders, queue) = smol::channel::bounded(4);
        let status = ChildStatus {
            program: program.clone(),
            state: ChildState::Starting,
            pid: None,
            starts: 0,
            ending: String::new(),
        };
        self.entries().insert(program.name.clone(), Entry { status, orders });
        executor.spawn(keep(self.clone(), program, queue)).detach();
    }

    /// Every child.
    pub(super) fn list(&self) -> Vec<ChildStatus> {
        self.entries().values().map(|entry| entry.status.clone()).collect()
    }

    /// One child.
    pub(super) fn status(&self, name: &str) -> Option<ChildStatus> {
        self.entries().get(name).map(|entry| entry.status.clone())
    }

    /// Notes that a child answers.
    pub(super) fn answered(&self, name: &str) {
        self.change(name, |status| {
            if status.state == ChildState::Starting {
                status.state = ChildState::Running;
            }
        });
    }

    /// What is told of each start and end of a process.
    pub(super) fn listen(&self) -> Receiver<()> {
        let (sender, receiver) = smol::channel::bounded(1);
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Fulfils an operator's wish.
    pub(super) async fn wish(&self, name: &str, wish: ChildWish) -> Result<(), String> {
        let orders = self.entries().get(name).map(|entry| entry.orders.clone());
        let orders = orders.ok_or_else(|| format!("{name:?} was not started here"))?;
        let (done, fulfilled) = smol::channel::bounded(1);
        let ending = || String::from("this machine's platform is ending");
        orders.send(Order { wish, done }).await.map_err(|_| ending())?;
        fulfilled.recv().await.unwrap_or_else(|_| Err(ending()))
    }

    /// Ends all, side by side, and leaves them ended.
    pub(super) async fn stop_all(&self, executor: &Executor) {
        let names: Vec<String> = self.entries().keys().cloned().collect();
        let stopping: Vec<_> = names
            .into_iter()
            .map(|name| {
                let children = self.clone();
                executor.spawn(async move { children.wish(&name, ChildWish::Stop).await })
            })
            .collect();
        for task in stopping {
            if let Err(error) = task.await {
                log::warn!("{error}");
            }
        }
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut ChildStatus)) {
        if let Some(entry) = self.entries().get_mut(name) {
            change(&mut entry.status);
        }
        let mut listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| {
            !matches!(listener.try_send(()), Err(smol::channel::TrySendError::Closed(())))
        });
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.entry_by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a program until the children are dropped.
async fn keep(children: Children, program: Program, queue: Receiver<Order>) {
    let name = program.name.clone();
    let mut pause = PAUSE_MIN;
    let mut life = 0..;
    loop {
        let started = Instant::now();
        let ending = match spawn(&program, life.next() == Some(0)) {
            Ok(mut child) => {
                // Held here, since waiting for a child closes a pipe that it still has.
                let _pipe = child.stdin.take();
                let pid = child.id();
                children.change(&name, |status| {
                    status.state = ChildState::Starting;
                    status.pid = Some(pid);
                    status.starts += 1;
                });
                match watch(&children, &name, child, &queue).await {
                    Some(ending) => ending,
                    None => return,
                }
            }
            Err(error) => Ending::ByItself(format!("it cannot be started: {error}")),
        };
        match ending {
            Ending::ByItself(text) => {
                log::warn!("{name}: {text}; starting it again");
                pause = if started.elapsed() > LIVED { PAUSE_MIN } else { pause };
                let known = children.status(&name);
                if known.is_some_and(|known| known.state == ChildState::Running) {
                    pause = pause.min(PAUSE_ANSWERED_MAX);
                }
                children.change(&name, |status| {
                    status.state = ChildState::Waiting;
                    status.pid = None;
                    status.ending = text;
                });
                if !wait(&children, &name, pause, &queue).await {
                    return;
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Ending::Wished => {
                pause = PAUSE_MIN;
                if !wait_for_start(&children, &name, &queue).await {
                    return;
                }
            }
        }
    }
}

/// How a process came to its end.
enum Ending {
    ByItself(String),
    Wished,
}

/// Starts a process. A fault that the environment names is of its first life alone.
fn spawn(program: &Program, is_first: bool) -> std::io::Result<Child> {
    if std::fs::metadata(&program.log).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        std::fs::rename(&program.log, program.log.with_extension("log.old"))?;
    }
    let log = File::options().create(true).append(true).open(&program.log)?;
    let mut command = Command::new(&program.executable);
    if !is_first {
        command.env_remove("LAPWING_FAULT");
    }
    if std::env::var_os(ARENAS.0).is_none() {
        command.env(ARENAS.0, ARENAS.1);
    }
    command
        .args(&program.arguments)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
}

/// Waits for the process' end or an order; `None` when nobody is left to give one.
async fn watch(
    children: &Children,
    name: &str,
    mut child: Child,
    queue: &Receiver<Order>,
) -> Option<Ending> {
    loop {
        let ended = async { Event::Ended(child.status().await) };
        let ordered = async { queue.recv().await.map_or(Event::Closed, Event::Ordered) };
        match smol::future::or(ended, ordered).await {
            Event::Ended(status) => return Some(Ending::ByItself(describe(status))),
            Event::Closed => return None,
            Event::Ordered(Order { wish: ChildWish::Start, done }) => {
                // It runs already.
                let _ = done.send(Ok(())).await;
            }
            Event::Ordered(Order { wish, done }) => {
                let ended = end(&mut child, wish).await;
                children.change(name, |status| {
                    status.state = ChildState::Stopped;
                    status.pid = None;
                    status.ending = String::from("stopped by an operator");
                });
                let _ = done.send(ended).await;
                return Some(Ending::Wished);
            }
        }
    }
}

/// Ends a process: by SIGTERM with a time to drain, or at once.
async fn end(child: &mut Child, wish: ChildWish) -> Result<(), String> {
    let signal = if wish == ChildWish::Kill { Signal::SIGKILL } else { Signal::SIGTERM };
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have ended meanwhile, which is what is wanted.
        let _ = kill(Pid::from_raw(pid), signal);
    }
    let ended = async { Some(child.status().await) };
    let late = async {
        Timer::after(DRAIN).await;
        None
    };
    match smol::future::or(ended, late).await {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error.to_string()),
        None => {
            child.kill().map_err(|error| error.to_string())?;
            let _ = child.status().await;
            Ok(())
        }
    }
}

/// Waits before the next start; an order is taken at once. False when nobody is left.
async fn wait(children: &Children, name: &str, pause: Duration, queue: &Receiver<Order>) -> bool {
    let waited = async {
        Timer::after(pause).await;
        None
    };
    let ordered = async { Some(queue.recv().await) };
    match smol::future::or(ordered, waited).await {
        None => true,
        Some(Err(_)) => false,
        Some(Ok(order)) => {
            let is_start = order.wish == ChildWish::Start;
            if !is_start {
                children.change(name, |status| status.state = ChildState::Stopped);
            }
            let _ = order.done.send(Ok(())).await;
            is_start || wait_for_start(children, name, queue).await
        }
    }
}

/// Waits until an operator wants it started. False when nobody is left.
async fn wait_for_start(children: &Children, name: &str, queue: &Receiver<Order>) -> bool {
    while let Ok(order) = queue.recv().await {
        let is_start = order.wish == ChildWish::Start;
        if is_start {
            children.change(name, |status| status.state = ChildState::Starting);
        }
        let _ = order.done.send(Ok(())).await;
        if is_start {
            return true;
        }
    }
    false
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("its process ended ({status})"),
        Err(error) => format!("its process is lost: {error}"),
    }
}

/// The last lines of a log, for a person.
pub(super) fn last_lines(log: &std::path::Path, count: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
