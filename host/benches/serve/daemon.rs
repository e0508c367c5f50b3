//! The daemon that is measured: started in a home of its own, watched from outside.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use super::Result;

/// Its processes, by the command that each was started with; the first is the parent.
const PROCESSES: [(&str, &str); 3] = [
    ("gateway", ""),
    ("worker", "serve-worker"),
    ("signer", "serve-signer"),
];

/// A daemon that serves the null job.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: String,
    health: String,
    pub(crate) key: String,
    /// In the order of [`PROCESSES`].
    pids: Vec<u32>,
}

/// What its ledger counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    done: f64,
    commits: f64,
    syncs: f64,
}

impl Counts {
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            done: self.done - before.done,
            commits: self.commits - before.commits,
            syncs: self.syncs - before.syncs,
        }
    }

    pub(crate) fn syncs_per_job(&self) -> f64 {
        self.syncs / self.done.max(1.0)
    }

    pub(crate) fn jobs_per_commit(&self) -> f64 {
        self.done / self.commits.max(1.0)
    }
}

/// CPU time of its processes and of this one, in seconds.
#[derive(Debug)]
pub(crate) struct Cpu(Vec<(&'static str, f64)>);

impl Cpu {
    /// Microseconds a job since then, of each process.
    pub(crate) fn since(&self, before: &Self, jobs: u32) -> Value {
        let pairs = self.0.iter().zip(&before.0);
        let jobs = f64::from(jobs.max(1));
        let each = pairs.map(|((name, now), (_, then))| {
            let micros = (now - then) * 1e6 / jobs;
            ((*name).to_owned(), json!(micros))
        });
        Value::Object(each.collect())
    }
}

impl Daemon {
    /// Starts it in a new home in this folder.
    ///
    /// # Errors
    /// A command failed, or the daemon did not start.
    pub(crate) fn start(
        tussah: &Path,
        folder: &Path,
        module: &[u8],
        jobs_max: u32,
    ) -> Result<Self> {
        let home = folder.join("home");
        fs::create_dir(&home)?;
        let file = folder.join("null.wasm");
        fs::write(&file, module)?;
        let tussah = |arguments: &[&str]| {
            let mut command = Command::new(tussah);
            command.args(arguments).env("TUSSAH_HOME", &home);
            command
        };
        let file = file.to_str().ok_or("the folder's name is not UTF-8")?;
        answer(tussah(&[
            "deploy", file, "--as", "null", "--shape", "raw", "--json",
        ]))?;
        let key = answer(tussah(&["serve", "key", "add", "bench", "--json"]))?;
        let key = key["key"].as_str().ok_or("there is no key")?.to_owned();
        let (any, jobs_max) = ("127.0.0.1:0", jobs_max.to_string());
        let listen = ["serve", "--listen", any, "--metrics-listen", any];
        let work = ["--device", "cpu", "--threads", "1", "--jobs-max", &jobs_max];
        let mut child = tussah(&[listen.as_slice(), &work].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?);
        let mut line = String::new();
        while !line.contains("serving on") {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Err("the daemon did not start".into());
            }
        }
        // What it says is not for us, and must not stop it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let mut places = line.split("http://").skip(1).filter_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
            rest.get(..end.unwrap_or(rest.len())).map(str::to_owned)
        });
        let (address, health) = (places.next(), places.next());
        let mut daemon = Self {
            address: address.ok_or("no address")?,
            health: health.ok_or("no address of its metrics")?,
            key,
            pids: Vec::new(),
            child,
        };
        daemon.until_ready()?;
        daemon.pids = daemon.find_processes()?;
        Ok(daemon)
    }

    fn until_ready(&self) -> Result<()> {
        while !self.get("/readyz")?.contains("200 OK") {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.health)?;
        let host = &self.health;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Children of its process, by their command lines.
    fn find_processes(&self) -> Result<Vec<u32>> {
        let parent = self.child.id();
        let mut children = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let Some(pid) = pid else { continue };
            let status = status(pid).unwrap_or_default();
            if field(&status, "PPid") == Some(u64::from(parent)) {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                children.push((pid, String::from_utf8_lossy(&line).into_owned()));
            }
        }
        let pids = PROCESSES.iter().map(|(name, command)| {
            if command.is_empty() {
                return Ok(parent);
            }
            let found = children.iter().find(|(_, line)| line.contains(command));
            found
                .map(|(pid, _)| *pid)
                .ok_or(format!("there is no {name}"))
        });
        Ok(pids.collect::<std::result::Result<_, _>>()?)
    }

    /// KiB of memory that each process has resident.
    ///
    /// # Errors
    /// One of them is gone.
    pub(crate) fn resident(&self) -> Result<Value> {
        let mut all = serde_json::Map::new();
        for ((name, _), pid) in PROCESSES.iter().zip(&self.pids) {
            let status = status(*pid)?;
            let resident = field(&status, "VmRSS").ok_or("no VmRSS")?;
            all.insert((*name).to_owned(), json!(resident));
        }
        Ok(Value::Object(all))
    }

    /// CPU time of each process so far.
    ///
    /// # Errors
    /// One of them is gone.
    pub(crate) fn cpu_seconds(&self) -> Result<Cpu> {
        let clients = ("clients", std::process::id());
        let named = PROCESSES.iter().map(|(name, _)| *name);
        let all = named.zip(self.pids.iter().copied()).chain([clients]);
        let times = all.map(|(name, pid)| Ok((name, cpu_seconds(pid)?)));
        Ok(Cpu(times.collect::<Result<_>>()?))
    }

    /// What its ledger counted so far.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let text = self.get("/metrics")?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|value| value.trim().parse().ok());
            value.ok_or_else(|| format!("no {name} in its metrics"))
        };
        Ok(Counts {
            done: value("tussah_job_ends_total{result=\"done\"}")?,
            commits: value("tussah_ledger_commits_total")?,
            syncs: value("tussah_ledger_syncs_total")?,
        })
    }

    /// Ends it as a service manager would.
    ///
    /// # Errors
    /// It did not end well.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("the daemon ended with {status}").into()),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already, unless something failed before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command's JSON.
fn answer(mut command: Command) -> Result<Value> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn status(pid: u32) -> std::io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/status"))
}

/// A number of /proc/…/status.
fn field(status: &str, name: &str) -> Option<u64> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| *found == name)?;
    value.split_whitespace().next()?.parse().ok()
}

/// User and system time, from /proc/…/stat: fields 14 and 15, in hundredths of a second
/// (proc_pid_stat(5); Linux fixes USER_HZ at 100).
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')').ok_or("no stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: std::result::Result<Vec<u32>, _> = ticks.map(str::parse).collect();
    Ok(ticks?.into_iter().map(f64::from).sum::<f64>() / 100.0)
}
