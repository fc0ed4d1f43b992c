//! One long run: a relay, its clients, its next hops and its weather, until every queue is empty again.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use spool::sim::{Fault as DiskFault, Rng, SimDisk};

use zmailer::control::postman::{Kept, Original};
use zmailer::io::sim::{MONO_START_NS, SimNet};

use super::audit::{Audit, HEALTHY_NS, Look, OVERDUE_NS, SLACK_NS};
use super::ledger::{Fate, HOUR_NS, Ledger, Letter, SECOND_NS, Wrong, domain_of, expiry_ns};
use super::plan::{Plan, Trick, make, sessions_max, sites};
use super::process::{End, Process, derived};
use super::sender::{Manner, Sender, content};
use super::site::{Door, GOOD, MOODS, Site};
use super::weather::{Fault, Weather};

/// One clock step without any event, at most: what is looked at by a slow timer only (expiries) is late by
/// that.
const STEP_NS: u64 = 60 * SECOND_NS;

/// Turns in a row that a shard wants at once while nothing happens.
const RESTLESS_MAX: u32 = 1000;

/// A stop in order takes no longer: 2 s for deliveries under way, 5 s for the last commit, and a look.
const STOP_NS: u64 = 8 * SECOND_NS;

/// What a run has seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub hours: u64,
    pub letters: usize,
    pub accepted: usize,
    pub delivered: usize,
    pub repeats: usize,
    pub reports: usize,
    pub kept: usize,
    pub starts: usize,
    /// Logs that began from a checkpoint, and messages in those.
    pub spared: usize,
    pub spared_messages: u64,
    pub audits: usize,
    pub waiters: usize,
    pub faults: BTreeMap<String, usize>,
    pub digest: u64,
    pub wrong: Vec<(Wrong, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Start,
    DiskGood(usize),
    DiskFast(usize),
    LogGood(usize),
    MoodGood(usize),
}

/// See the module.
pub struct Run {
    plan: Plan,
    net: SimNet,
    process: Process,
    sites: Vec<Site>,
    senders: Vec<Sender>,
    ledger: Ledger,
    weather: Weather,
    rng: Rng,
    audit: Audit,
    /// What ends a disturbance, by time.
    ends: BTreeMap<(u64, u64), Until>,
    ends_count: u64,
    stopping_ns: Option<u64>,
    /// Since when some disk was failing or slow.
    disk_bad: BTreeMap<usize, u64>,
    last_trouble_ns: u64,
    up_since_ns: u64,
    /// Messages for the postmaster and when they are answered.
    postman: VecDeque<(u64, u16, Kept)>,
    snapshot: Option<Vec<SimDisk>>,
    letters_count: usize,
    peace: bool,
    restless_count: u32,
    tally: Tally,
}

impl Run {
    pub fn new(plan: Plan) -> Self {
        let net = SimNet::new(plan.seed);
        let sites = sites(plan.trick);
        for site in &sites {
            for address in &site.addresses {
                net.listen(*address);
            }
        }
        let span_ns = plan.hours * HOUR_NS;
        let (fault_ns, letters_ns) = (span_ns / plan.faults.max(1), span_ns / plan.clients.max(1));
        let mut run = Self {
            process: Process::new(net.clone(), make(plan)),
            net,
            sites,
            senders: Vec::new(),
            ledger: Ledger::default(),
            weather: Weather::new(derived(plan.seed, 1), fault_ns, letters_ns),
            rng: derived(plan.seed, 2),
            audit: Audit::default(),
            ends: BTreeMap::new(),
            ends_count: 0,
            stopping_ns: None,
            disk_bad: BTreeMap::new(),
            last_trouble_ns: 0,
            up_since_ns: 0,
            postman: VecDeque::new(),
            snapshot: None,
            letters_count: 0,
            peace: false,
            restless_count: 0,
            tally: Tally::default(),
            plan,
        };
        run.start();
        run
    }

    /// Runs to the end of its hours, lets the faults stop and the queue drain, and judges.
    pub fn run(mut self) -> Tally {
        let end_ns = MONO_START_NS + self.plan.hours * HOUR_NS;
        while self.now_ns() < end_ns && self.ledger.wrong.is_empty() {
            self.turn();
        }
        self.finish()
    }

    fn finish(mut self) -> Tally {
        self.make_peace();
        let drained_ns = self.now_ns() + drain_ns();
        while self.ledger.wrong.is_empty() && !self.is_drained() {
            self.turn();
            if self.now_ns() > drained_ns {
                let story = format!("{} recipients", self.process.queued());
                self.ledger.accuse(Wrong::NotDrained, story);
            }
        }
        if self.ledger.wrong.is_empty() {
            self.ledger.judge();
        }
        self.tally()
    }

    /// A message without a sender expires after a restart, when its content cannot be read at once.
    pub fn unreadable(mut self) -> Tally {
        const SITE: usize = 3;
        const EIO: i32 = 5;
        self.peace = true;
        let refused = MOODS.iter().find(|mood| mood.door == Door::Refused);
        self.sites[SITE].set_mood(&self.net, *refused.expect("there is such a mood"));
        let (name, mut letter) = self.letter(Some(SITE));
        letter.sender.clear();
        self.client_comes(0, Manner::Good, VecDeque::from([(name, letter)]));
        while !self.senders.is_empty() {
            self.turn();
        }
        self.end_process(End::Killed);
        while !self.process.is_up() {
            self.turn();
        }
        self.net.with_disk(0, |disk| disk.fail_read(EIO));
        let expired_ns = self.now_ns() + expiry_ns(&self.sites[SITE].domain) + HOUR_NS;
        while self.now_ns() < expired_ns {
            self.turn();
        }
        self.finish()
    }

    /// Good weather, one next hop slow with a long queue from every shard; then mail for the others, which
    /// must not wait for it. Says who waits all the same.
    pub fn rush(mut self) -> Vec<String> {
        self.peace = true;
        let slow = MOODS.iter().find(|mood| mood.name == "slow");
        self.sites[0].set_mood(&self.net, *slow.expect("there is such a mood"));
        for shard in 0..self.plan.shards {
            for _ in 0..4 {
                let letters = (0..100).map(|_| self.letter(Some(0))).collect();
                self.client_comes(shard, Manner::Good, letters);
            }
        }
        while !self.senders.is_empty() {
            self.turn();
        }
        let mut names = Vec::new();
        for shard in 0..self.plan.shards {
            let letters = (1..self.sites.len()).map(|site| self.letter(Some(site)));
            let mut letters: VecDeque<_> = letters.collect();
            for (_, letter) in &mut letters {
                letter.recipients[0] = letter.recipients[0].replace("bad", "r");
            }
            names.extend(letters.iter().map(|(name, _)| name.clone()));
            self.client_comes(shard, Manner::Good, letters);
        }
        let until_ns = self.now_ns() + SLACK_NS;
        while self.now_ns() < until_ns {
            self.turn();
        }
        let delivered = self.ledger.delivered_names();
        names.retain(|name| !delivered.contains(name.as_str()));
        names
    }

    fn tally(mut self) -> Tally {
        for (_, story) in self.ledger.wrong.iter_mut().take(4) {
            let is_name = |word: &&str| {
                let number = word.strip_prefix('L');
                number.is_some_and(|number| number.parse::<u32>().is_ok())
            };
            if let Some(name) = story.split(|c: char| !c.is_alphanumeric()).find(is_name) {
                let log = self.process.log_of(name);
                story.push('\n');
                story.push_str(&log);
            }
        }
        Tally {
            hours: (self.net.now().mono_ns - MONO_START_NS) / HOUR_NS,
            letters: self.ledger.letters.len(),
            accepted: self.ledger.accepted_count(),
            delivered: self.ledger.delivered_names().len(),
            repeats: self.ledger.repeats_count(),
            reports: self.ledger.reports_count,
            spared: self.process.spared,
            spared_messages: self.process.spared_messages,
            digest: self.net.digest(),
            wrong: self.ledger.wrong,
            ..self.tally
        }
    }

    fn now_ns(&self) -> u64 {
        self.net.now().mono_ns
    }

    fn turn(&mut self) {
        if self.process.is_up() && self.process.turn() {
            self.stopped();
        }
        for sender in &mut self.senders {
            sender.turn(&self.net, &mut self.rng, &mut self.ledger);
        }
        self.senders.retain(|sender| !sender.over);
        for site in &mut self.sites {
            site.turn(&self.net, &mut self.rng, &mut self.ledger);
        }
        self.control_turn();
        self.check_limits();
        self.audit_turn();
        self.end_disturbances();
        if !self.peace {
            self.weather_turn();
        }
        self.skip();
    }

    /// Lets the clock go on to the next thing that happens.
    fn skip(&mut self) {
        let now_ns = self.now_ns();
        if self.process.told && self.process.is_up() {
            return;
        }
        let mut until_ns = now_ns + STEP_NS;
        if !self.peace {
            let weather = &self.weather;
            until_ns = until_ns.min(
                weather
                    .next_ns
                    .min(weather.letters_ns)
                    .min(weather.audit_ns),
            );
        }
        let shards_ns = self.process.due_ns();
        self.check_rest(shards_ns.is_some_and(|due_ns| due_ns <= now_ns));
        let due = [
            shards_ns,
            self.net.quiet_until(),
            self.audit.due_ns(),
            self.ends.first_key_value().map(|((at_ns, _), _)| *at_ns),
            self.postman.front().map(|(at_ns, _, _)| *at_ns),
        ];
        let sites = self.sites.iter().filter_map(Site::due_ns);
        until_ns = due
            .into_iter()
            .flatten()
            .chain(sites)
            .fold(until_ns, u64::min);
        self.net.advance(until_ns.saturating_sub(now_ns));
    }

    /// The control thread: names, and messages for the postmaster.
    fn control_turn(&mut self) {
        if !self.process.is_up() {
            return;
        }
        let names = self.sites.iter().filter(|site| site.addresses.len() > 1);
        let names: Vec<(String, Vec<SocketAddr>)> = names
            .map(|site| (site.domain.clone(), site.addresses.clone()))
            .collect();
        self.process.resolve(&names);
        let now_ns = self.now_ns();
        while let Some(message) = self.process.undeliverable() {
            let fails = !self.peace && self.rng.below(4) == 0;
            let recipients: Vec<String> = message
                .recipients
                .iter()
                .map(|(address, _)| String::from_utf8_lossy(address).into_owned())
                .collect();
            let result = if fails {
                Err("no room".to_owned())
            } else {
                let content: &[u8] = match &message.content {
                    Original::Memory(content) => content,
                    Original::File(_) => unreachable!("large letters have a sender"),
                };
                self.ledger.kept(now_ns, &recipients, content);
                self.tally.kept += 1;
                Ok(())
            };
            let kept = Kept {
                token: message.token,
                result,
            };
            self.postman
                .push_back((now_ns + SECOND_NS / 10, message.shard, kept));
        }
        while let Some((_, shard, kept)) = self.postman.pop_front_if(|(at_ns, ..)| *at_ns <= now_ns)
        {
            self.process.kept(shard, kept);
        }
    }

    fn check_limits(&mut self) {
        for site in &self.sites {
            for address in &site.addresses {
                let most = self.net.calls_most(*address);
                if most > site.limit {
                    let story = format!("{most} connections to {address}, {} allowed", site.limit);
                    self.ledger.accuse(Wrong::Limit, story);
                }
            }
        }
        for shard in 0..self.plan.shards {
            let clients = self.net.clients_open(shard);
            if clients > sessions_max(self.plan.seed) {
                let story = format!("{clients} clients at shard {shard}");
                self.ledger.accuse(Wrong::Limit, story);
            }
        }
    }

    /// A shard that wants another turn at once, again and again, while nothing happens, burns a processor.
    fn check_rest(&mut self, restless: bool) {
        let quiet_ns = self.net.quiet_until();
        let quiet = quiet_ns.is_none_or(|at_ns| at_ns > self.now_ns());
        self.restless_count = if restless && quiet {
            self.restless_count + 1
        } else {
            0
        };
        if self.restless_count > RESTLESS_MAX {
            let story = format!("at {}", self.now_ns());
            self.ledger.accuse(Wrong::Restless, story);
        }
    }

    fn audit_turn(&mut self) {
        let wanted = !self.peace && self.weather.audit(self.now_ns());
        if !self.process.is_up() || self.stopping_ns.is_some() || !self.disk_bad.is_empty() {
            self.audit.cancel();
            return;
        }
        let (now, shards) = (self.net.now(), self.plan.shards);
        if self.audit.is_under_way() {
            if let Some((first, second)) = self.audit.turn(&mut self.process, shards, now) {
                self.tally.audits += 1;
                self.compare(&first, &second);
            }
        } else if wanted {
            self.audit.begin(&mut self.process, shards, now.mono_ns);
        }
    }

    fn compare(&mut self, first: &Look, second: &Look) {
        self.tally.waiters += first.waiting.len();
        for (name, waiter) in &first.waiting {
            if second.waiting.get(name) != Some(waiter) {
                continue;
            }
            let site = self.sites.iter().find(|site| waits_for(site, &waiter.host));
            let had_room = site.is_some_and(|site| {
                site.mood.is_prompt()
                    && site.since_ns + HEALTHY_NS < first.at_ns
                    && site.full_ns < first.at_ns
            });
            if had_room && self.last_trouble_ns < first.at_ns {
                let story = format!("{name:?} waits for {waiter:?} since {}", first.at_ns);
                self.ledger.accuse(Wrong::Late, story);
            }
        }
        let calm_ns = second.at_ns.saturating_sub(OVERDUE_NS);
        for (name, age_ns) in &second.ages_ns {
            let domain = domain_of(&name.1);
            let calm = self.sites.iter().any(|site| {
                let quick = site.mood.is_prompt() || site.mood.door != Door::Open;
                site.domain == domain && quick && site.since_ns < calm_ns
            });
            let calm = calm && self.up_since_ns < calm_ns && self.last_trouble_ns < calm_ns;
            if calm && *age_ns > expiry_ns(domain) + OVERDUE_NS {
                let story = format!("{name:?} is {} h old", age_ns / HOUR_NS);
                self.ledger.accuse(Wrong::Late, story);
            }
        }
    }

    fn later(&mut self, after_ns: u64, until: Until) {
        self.ends_count += 1;
        self.ends
            .insert((self.now_ns() + after_ns, self.ends_count), until);
    }

    fn end_disturbances(&mut self) {
        let now_ns = self.now_ns();
        while let Some(entry) = self.ends.first_entry() {
            if entry.key().0 > now_ns {
                break;
            }
            let until = entry.remove();
            self.end_disturbance(until);
        }
    }

    fn end_disturbance(&mut self, until: Until) {
        match until {
            Until::MoodGood(site) => self.sites[site].set_mood(&self.net, GOOD),
            Until::Start => self.start(),
            // A process that was started since has a disk without faults.
            _ if !self.process.is_up() => {}
            Until::DiskGood(shard) => {
                self.net.with_disk(shard, |disk| {
                    disk.fail_all(None);
                    disk.capacity_bytes(None);
                });
                self.disk_recovers(shard);
            }
            Until::DiskFast(shard) => {
                self.net.set_disk_latency(shard, None);
                self.disk_recovers(shard);
            }
            Until::LogGood(shard) => self.net.fail_log(shard, None),
        }
    }

    fn disk_suffers(&mut self, shard: usize) {
        let now_ns = self.now_ns();
        self.disk_bad.entry(shard).or_insert(now_ns);
        self.last_trouble_ns = now_ns;
    }

    fn disk_recovers(&mut self, shard: usize) {
        let now_ns = self.now_ns();
        if let Some(since_ns) = self.disk_bad.remove(&shard) {
            self.ledger.trouble(since_ns, now_ns);
            self.last_trouble_ns = now_ns;
        }
    }

    fn weather_turn(&mut self) {
        let now_ns = self.now_ns();
        if self.weather.letters(now_ns) {
            self.clients_come();
        }
        if let Some(fault) = self.weather.fault(now_ns) {
            self.strike(fault);
        }
    }

    fn strike(&mut self, fault: Fault) {
        let name = match fault {
            Fault::Peer => self.change_mood(),
            Fault::Network => {
                let latency_ns = [50_000, 2_000_000, 40_000_000][self.rng.index(3)];
                self.net.set_latency(latency_ns);
                "network".to_owned()
            }
            _ if !self.process.is_up() || self.stopping_ns.is_some() => return,
            Fault::PowerCut | Fault::Killed => {
                let end = if fault == Fault::Killed {
                    End::Killed
                } else {
                    End::Power
                };
                self.end_process(end);
                format!("{fault:?}")
            }
            Fault::Stopped => {
                self.process.shared.request_drain();
                self.stopping_ns = Some(self.now_ns());
                format!("{fault:?}")
            }
            _ => {
                let shard = self.rng.index(self.plan.shards);
                self.strike_disk(fault, shard);
                format!("{fault:?}")
            }
        };
        let now_ns = self.now_ns();
        self.ledger.note(now_ns, name.clone());
        *self.tally.faults.entry(name).or_default() += 1;
    }

    fn strike_disk(&mut self, fault: Fault, shard: usize) {
        const EIO: i32 = 5;
        const EROFS: i32 = 30;
        let last_ns = self.weather.while_ns(HOUR_NS);
        let rng = &mut self.rng;
        match fault {
            Fault::DiskErrors => {
                let nth: Vec<u64> = (0..1 + rng.below(4)).map(|_| 1 + rng.below(20)).collect();
                let faults = [
                    DiskFault::Error { errno: EIO },
                    DiskFault::Full,
                    DiskFault::Short { bytes: 4096 },
                ];
                let faults: Vec<_> = nth.iter().map(|nth| (*nth, faults[rng.index(3)])).collect();
                self.net.with_disk(shard, |disk| {
                    for (nth, fault) in faults {
                        disk.fail_nth(nth, fault);
                    }
                });
                self.disk_suffers(shard);
                self.later(last_ns, Until::DiskGood(shard));
            }
            Fault::DiskBroken => {
                let errno = [EIO, EROFS][rng.index(2)];
                self.net.with_disk(shard, |disk| disk.fail_all(Some(errno)));
                self.disk_suffers(shard);
                self.later(last_ns, Until::DiskGood(shard));
            }
            Fault::DiskFull => {
                self.net.with_disk(shard, |disk| {
                    let files: Vec<_> = disk.files().collect();
                    let used = files.iter().filter_map(|file| disk.image(*file));
                    let used: usize = used.map(<[u8]>::len).sum();
                    disk.capacity_bytes(Some(used as u64));
                });
                self.disk_suffers(shard);
                self.later(last_ns, Until::DiskGood(shard));
            }
            Fault::DiskSlow => {
                let slow_ns = SECOND_NS * (1 + rng.below(5));
                self.net.set_disk_latency(shard, Some(slow_ns));
                self.disk_suffers(shard);
                self.later(last_ns / 4, Until::DiskFast(shard));
            }
            Fault::ReadErrors => {
                let count = 1 + rng.below(3);
                self.net
                    .with_disk(shard, |disk| (0..count).for_each(|_| disk.fail_read(EIO)));
            }
            _ => {
                self.net.fail_log(shard, Some(EIO));
                self.later(last_ns, Until::LogGood(shard));
            }
        }
    }

    fn change_mood(&mut self) -> String {
        let site = self.rng.index(self.sites.len());
        let mood = MOODS[self.rng.index(MOODS.len())];
        self.sites[site].set_mood(&self.net, mood);
        // A few outlast the expiry of everything that waits for them.
        let most_ns = if self.rng.below(6) == 0 {
            150 * HOUR_NS
        } else {
            12 * HOUR_NS
        };
        let last_ns = self.weather.while_ns(most_ns);
        self.later(last_ns, Until::MoodGood(site));
        let (now_ns, domain) = (self.now_ns(), &self.sites[site].domain);
        let story = format!("{domain} for {} s:", last_ns / SECOND_NS);
        self.ledger.note(now_ns, story);
        format!("peer {}", mood.name)
    }

    fn clients_come(&mut self) {
        if self.plan.trick == Trick::DisksForget && self.process.is_up() && self.rng.below(8) == 0 {
            self.snapshot = Some(self.process.disks());
        }
        let flood = self.rng.below(100) == 0;
        let count = if flood { 6 } else { 1 + self.rng.below(4) };
        let one_shard = self.rng.index(self.plan.shards);
        self.weather.look_soon(self.now_ns());
        for _ in 0..count {
            let letters = if flood { 60 } else { 1 + self.rng.below(3) };
            let manner = match self.rng.below(20) {
                0 => Manner::Breaks,
                1 => Manner::Hurried,
                2 => Manner::Silent,
                _ => Manner::Good,
            };
            let to = flood.then(|| self.rng.index(self.sites.len()));
            let letters = (0..letters).map(|_| self.letter(to)).collect();
            let any_shard = self.rng.index(self.plan.shards);
            let shard = if flood { one_shard } else { any_shard };
            self.client_comes(shard, manner, letters);
        }
    }

    fn client_comes(&mut self, shard: usize, manner: Manner, letters: VecDeque<(String, Letter)>) {
        let host = 1 + self.rng.below(250) as u8;
        let peer = SocketAddr::new([192, 0, 2, host].into(), 1000);
        let id = self.net.connect_client(shard, 0, peer);
        self.senders.push(Sender::new(id, manner, letters));
    }

    fn letter(&mut self, to: Option<usize>) -> (String, Letter) {
        self.letters_count += 1;
        let name = format!("L{}", self.letters_count);
        let rng = &mut self.rng;
        let large = rng.below(150) == 0;
        let sender = if !large && rng.below(12) == 0 {
            String::new()
        } else {
            format!("{name}@{}", self.sites[rng.index(self.sites.len())].domain)
        };
        let count = if to.is_some() {
            1
        } else {
            [1, 1, 2, 5][rng.index(4)]
        };
        let recipients = (0..count).map(|number| {
            let site = to.unwrap_or_else(|| rng.index(self.sites.len()));
            let kind = if rng.below(30) == 0 { "bad" } else { "r" };
            format!("{kind}{number}.{name}@{}", self.sites[site].domain)
        });
        let letter = Letter {
            sender,
            recipients: recipients.collect(),
            content: content(&name, large, rng),
            fate: Fate::Unsent,
            sent_ns: 0,
        };
        (name, letter)
    }

    fn start(&mut self) {
        if self.process.is_up() {
            return;
        }
        self.tally.starts += 1;
        let cut_after = (!self.peace && self.rng.below(6) == 0).then(|| self.rng.below(30));
        if self.process.start(cut_after) {
            self.up_since_ns = self.now_ns();
            let queued = self.process.queued();
            let story = format!("started with {queued} recipients");
            self.ledger.note(self.up_since_ns, story);
            self.last_trouble_ns = self.up_since_ns;
        } else {
            *self
                .tally
                .faults
                .entry("PowerCut in recovery".to_owned())
                .or_default() += 1;
            self.later(SECOND_NS, Until::Start);
        }
    }

    /// A requested stop is complete.
    fn stopped(&mut self) {
        let since_ns = self.stopping_ns.take().unwrap_or(0);
        let took_ns = self.now_ns() - since_ns;
        let in_time = took_ns < STOP_NS && self.disk_bad.is_empty();
        self.leave(End::Killed, !in_time);
    }

    fn end_process(&mut self, end: End) {
        self.stopping_ns = None;
        self.leave(end, true);
    }

    fn leave(&mut self, end: End, crashed: bool) {
        let now_ns = self.now_ns();
        let story = format!("down with {} recipients", self.process.queued());
        self.ledger.note(now_ns, story);
        let bad: Vec<usize> = self.disk_bad.keys().copied().collect();
        for shard in bad {
            self.disk_recovers(shard);
        }
        if crashed {
            self.ledger.crash(now_ns);
        }
        self.process.end(end);
        if end == End::Power
            && let Some(disks) = self.snapshot.take()
        {
            self.process.replace_disks(disks);
        }
        self.postman.clear();
        self.audit.cancel();
        self.last_trouble_ns = now_ns;
        // Disturbances of the disks end with the process.
        self.ends
            .retain(|_, until| matches!(until, Until::MoodGood(_) | Until::Start));
        let down_ns = self.weather.while_ns(6 * HOUR_NS);
        self.later(if self.peace { SECOND_NS } else { down_ns }, Until::Start);
    }

    /// From now on there are no faults and no new mail.
    fn make_peace(&mut self) {
        self.peace = true;
        self.tally.letters = self.letters_count;
        for until in std::mem::take(&mut self.ends).into_values() {
            if !matches!(until, Until::MoodGood(_)) {
                self.end_disturbance(until);
            }
        }
        let spoiled = self.plan.trick == Trick::NoPeace;
        for (number, site) in self.sites.iter_mut().enumerate() {
            let full = MOODS.iter().find(|mood| mood.name == "full");
            let mood = full.filter(|_| spoiled && number == 0);
            site.set_mood(&self.net, *mood.unwrap_or(&GOOD));
        }
    }

    fn is_drained(&self) -> bool {
        self.process.is_up()
            && self.stopping_ns.is_none()
            && self.senders.is_empty()
            && self.postman.is_empty()
            && self.process.queued() == 0
            && self.sites.iter().all(Site::is_idle)
    }
}

fn waits_for(site: &Site, host: &str) -> bool {
    host.contains(&site.domain) || site.addresses.iter().any(|at| host == at.to_string())
}

/// After the faults have stopped: the longest delay and its jitter twice, a next hop's and then a
/// recipient's own; sessions of before end in 15 minutes, a client that says nothing in 5; a message
/// for the postmaster waits 5 minutes.
fn drain_ns() -> u64 {
    (2 * 66 + 30) * 60 * SECOND_NS
}
