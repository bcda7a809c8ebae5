//! The demo's nodes: processes that a person may kill, and start again.
//!
//! They form a cluster as nodes elsewhere do: a configuration file and a data directory each, one key. What they
//! keep outlives their process, so a node that was killed comes back with it. Nothing here knows who leads what.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use espalier_process::{Failure, OrFail};
use espalier_token::ClusterKey;

use super::process::{Process, Recipe, Words};
use super::programs::Programs;

/// A node as the operating system sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeProcess {
    /// Its place in the list of founders, which is also its id in the cluster.
    pub(crate) number: u64,
    pub(crate) pid: Option<u32>,
    pub(crate) endpoint: String,
}

/// The nodes, shared by who shows, who starts and who stops them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Crew(Arc<Mutex<Vec<Member>>>);

#[derive(Debug)]
struct Member {
    number: u64,
    place: Place,
    process: Process,
    starts: u32,
}

/// Where a node is and how it is started, the first time and again.
#[derive(Debug, Clone)]
struct Place {
    config: PathBuf,
    endpoint: String,
    programs: Programs,
    directory: PathBuf,
}

/// What is needed to reach the nodes.
pub(crate) struct Founded {
    /// The first token of an administrator.
    pub(crate) token: String,
    /// One for each node, in their order.
    pub(crate) words: Vec<Words>,
}

impl Crew {
    /// Starts so many nodes, which then look for each other; they are ready when they announce their endpoint.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, or a process not started.
    pub(crate) fn found(
        &self,
        count: usize,
        programs: &Programs,
        directory: &Path,
    ) -> Result<Founded, Failure> {
        let (key, token) = ClusterKey::generate();
        let problem = "the nodes were not prepared";
        std::fs::write(directory.join("cluster.key"), key.to_text()).or_fail(problem)?;
        let addresses = free_addresses(count * 2).or_fail(problem)?;
        let (public, between) = addresses.split_at(count);
        let mut words = Vec::new();
        for (number, (listen, own)) in (1..).zip(public.iter().zip(between)) {
            let config = directory.join(format!("node-{number}.toml"));
            let text = configuration(number, *listen, *own, between);
            std::fs::write(&config, text).or_fail(problem)?;
            let place = Place {
                config,
                endpoint: format!("http://{listen}"),
                programs: programs.clone(),
                directory: directory.to_owned(),
            };
            let process = place.start(number, 1)?;
            words.push(process.words());
            self.members().push(Member {
                number,
                place,
                process,
                starts: 1,
            });
        }
        Ok(Founded { token, words })
    }

    /// Every node now; one that has ended has no pid.
    pub(crate) fn look(&self) -> Vec<NodeProcess> {
        let look = |member: &mut Member| NodeProcess {
            number: member.number,
            pid: (!member.process.has_ended())
                .then(|| member.process.id())
                .flatten(),
            endpoint: member.place.endpoint.clone(),
        };
        self.members().iter_mut().map(look).collect()
    }

    /// Starts every node that has ended again, with its data and its address.
    ///
    /// # Errors
    ///
    /// If a process cannot be started.
    pub(crate) fn restart_ended(&self) -> Result<(), Failure> {
        for member in self.members().iter_mut() {
            if member.process.has_ended() {
                member.starts += 1;
                member.process = member.place.start(member.number, member.starts)?;
            }
        }
        Ok(())
    }

    /// Gives the processes away, to be stopped.
    pub(crate) fn dismiss(&self) -> Vec<Process> {
        let members = std::mem::take(&mut *self.members());
        members.into_iter().map(|member| member.process).collect()
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn start(&self, number: u64, start: u32) -> Result<Process, Failure> {
        // Each start has a log of its own.
        let name = format!("node-{number}-{start}");
        let words = ["--config".as_ref(), self.config.as_os_str()];
        let recipe = Recipe::new(name, &self.programs.orchestrator, words);
        Process::spawn(&self.programs.espalier, &recipe, &self.directory)
    }
}

fn configuration(
    number: u64,
    listen: SocketAddr,
    own: SocketAddr,
    between: &[SocketAddr],
) -> String {
    let founders: Vec<String> = between.iter().map(|it| format!("\"{it}\"")).collect();
    format!(
        "data_dir = \"node-{number}\"\nlisten = \"{listen}\"\nadmin_listen = \"127.0.0.1:0\"\n\
         [cluster]\nkey_file = \"cluster.key\"\nlisten = \"{own}\"\nadvertise = \"{own}\"\n\
         public_uri = \"http://{listen}\"\nbetween_nodes = \"plain\"\nbootstrap = [{}]\n",
        founders.join(", ")
    )
}

/// Addresses that nobody uses now. They are told to nodes before these bind them, since each node's list of
/// founders names all.
fn free_addresses(count: usize) -> std::io::Result<Vec<SocketAddr>> {
    let bind = |_| TcpListener::bind("127.0.0.1:0");
    let listeners: Vec<TcpListener> = (0..count).map(bind).collect::<Result<_, _>>()?;
    listeners.iter().map(TcpListener::local_addr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_and_every_founder_is_in_the_configuration() {
        let addresses = free_addresses(4).unwrap();
        let all: std::collections::BTreeSet<_> = addresses.iter().collect();
        assert_eq!(all.len(), 4);
        let text = configuration(1, addresses[0], addresses[2], &addresses[2..]);
        for address in &addresses[2..] {
            assert!(text.contains(&format!("\"{address}\"")), "{text}");
        }
        assert!(text.contains(&format!("listen = \"{}\"", addresses[0])));
    }
}
