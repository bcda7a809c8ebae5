//! Who leads what, and how often that changed for the demo's channel.

use std::collections::BTreeMap;

use espalier_proto::v1;

use super::nodes::NodeProcess;

/// What a node says of the cluster, as far as the demo shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leads {
    /// How many groups each node leads.
    by_node: BTreeMap<u64, u32>,
    /// All groups, also those that nobody leads just now.
    groups: usize,
    /// Who leads the group that the channel is in.
    owner: Option<u64>,
}

impl From<v1::Cluster> for Leads {
    fn from(cluster: v1::Cluster) -> Self {
        let mut leads = Self {
            groups: cluster.shards.len(),
            ..Self::default()
        };
        for shard in cluster.shards {
            let Some(leader) = number(&shard.leader) else {
                continue;
            };
            *leads.by_node.entry(leader).or_default() += 1;
            if shard.channels > 0 {
                leads.owner = Some(leader);
            }
        }
        leads
    }
}

/// "nodes/3" → 3.
fn number(name: &str) -> Option<u64> {
    name.strip_prefix("nodes/")?.parse().ok()
}

/// The nodes at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) processes: Vec<NodeProcess>,
    leads: Leads,
    /// The channel's last known owner: while nobody leads, the one before.
    pub(crate) owner: Option<u64>,
    /// How often the channel was seen with another owner than before.
    pub(crate) failovers: u32,
}

impl Leadership {
    /// Takes what was seen just now; a cluster that nobody could be asked about keeps what it was.
    pub(crate) fn update(&mut self, processes: Vec<NodeProcess>, leads: Option<Leads>) {
        self.processes = processes;
        let Some(leads) = leads else { return };
        if let Some(owner) = leads.owner {
            let before = self.owner.replace(owner);
            self.failovers += u32::from(before.is_some_and(|before| before != owner));
        }
        self.leads = leads;
    }

    /// How many groups a node leads, of how many; nobody leads anything that has ended.
    pub(crate) fn leads(&self, node: &NodeProcess) -> (u32, usize) {
        let led = match node.pid {
            Some(_) => self.leads.by_node.get(&node.number).copied(),
            None => None,
        };
        (led.unwrap_or(0), self.leads.groups)
    }

    /// What has changed since, in words.
    pub(crate) fn news(&self, before: &Self) -> Vec<String> {
        let mut news = Vec::new();
        for (now, then) in self.processes.iter().zip(&before.processes) {
            let number = now.number;
            match (then.pid, now.pid) {
                (Some(pid), None) => news.push(format!("node {number} (pid {pid}) has ended")),
                (None, Some(pid)) => news.push(format!("node {number} is back: pid {pid}")),
                (Some(_) | None, _) => {}
            }
        }
        if let Some(owner) = self.owner
            && before.owner.is_some_and(|before| before != owner)
        {
            news.push(format!("node {owner} owns the channel now"));
        }
        news
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn shard(leader: &str, channels: u32) -> v1::Shard {
        v1::Shard {
            leader: leader.to_owned(),
            channels,
            ..v1::Shard::default()
        }
    }

    fn leads(shards: &[(&str, u32)]) -> Leads {
        let shards = shards
            .iter()
            .map(|(leader, channels)| shard(leader, *channels));
        v1::Cluster {
            shards: shards.collect(),
            ..v1::Cluster::default()
        }
        .into()
    }

    fn processes(pids: [Option<u32>; 3]) -> Vec<NodeProcess> {
        let process = |(number, pid): (u64, Option<u32>)| NodeProcess {
            number,
            pid,
            endpoint: format!("http://127.0.0.1:{number}"),
        };
        (1..).zip(pids).map(process).collect()
    }

    /// Three nodes; the second owned the channel and was killed, the third owns it now.
    pub(crate) fn leadership() -> (Leadership, Leadership) {
        let mut now = Leadership::default();
        let all = processes([Some(11), Some(12), Some(13)]);
        now.update(
            all,
            Some(leads(&[("nodes/1", 0), ("nodes/2", 1), ("nodes/3", 0)])),
        );
        let before = now.clone();
        let two = processes([Some(11), None, Some(13)]);
        now.update(two.clone(), None);
        now.update(
            two.clone(),
            Some(leads(&[("nodes/1", 0), ("", 1), ("nodes/3", 0)])),
        );
        now.update(
            two,
            Some(leads(&[("nodes/1", 0), ("nodes/3", 1), ("nodes/3", 0)])),
        );
        (before, now)
    }

    #[test]
    fn a_failover_is_counted_once_and_told() {
        let (before, now) = leadership();
        assert_eq!((before.owner, before.failovers), (Some(2), 0));
        assert_eq!((now.owner, now.failovers), (Some(3), 1));
        let led: Vec<_> = now.processes.iter().map(|node| now.leads(node)).collect();
        assert_eq!(led, [(1, 3), (0, 3), (2, 3)]);
        assert_eq!(
            now.news(&before),
            ["node 2 (pid 12) has ended", "node 3 owns the channel now"]
        );
        assert_eq!(before.news(&now)[0], "node 2 is back: pid 12");
        assert_eq!(now.news(&now), [""; 0]);
    }
}
