//! The steps of the eviction model: when each may be taken, and what it does. The rules are told in the parent.

use super::{
    A, B, C, Cluster, D, EPOCH, Eviction, Heartbeat, LASTING, Play, REPLICAS, Replica, Rule, Salvage,
    Session, Stage, Step, Vector, WRITES, Write,
};

impl Cluster {
    pub(super) fn dot(&self, write: Write) -> (u8, usize) {
        let origin = match write {
            Write::Old => A,
            Write::Unsent => C,
            Write::Delete => B,
            Write::Replayed => D,
        };
        (self.issued[write as usize], origin)
    }

    fn holds_removal(&self, at: usize) -> bool {
        self.removal > 0 && self.replicas[at].held[A] >= self.removal
    }

    fn holds_admission(&self, at: usize) -> bool {
        self.admission.is_some_and(|(sponsor, hlc)| at == D || self.replicas[at].held[sponsor] >= hlc)
    }

    /// The members, as a replica knows them.
    fn members(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        (0..REPLICAS).filter(move |member| match *member {
            C => !self.holds_removal(at),
            D => self.holds_admission(at),
            _ => true,
        })
    }

    /// Whether a replica holds all that it must at the epoch: of the origins that count, and were there by then.
    pub(super) fn covers_epoch(&self, at: usize) -> bool {
        let late = |origin: usize| origin == D && self.admission.is_some_and(|(_, hlc)| hlc > EPOCH);
        let mut origins = self.members(at).filter(|origin| !late(*origin));
        origins.all(|origin| self.replicas[at].held[origin] >= EPOCH)
    }

    /// Whether two replicas take frames of each other at all.
    fn linked(&self, from: usize, to: usize) -> bool {
        let runs = |at: usize| matches!(self.replicas[at].stage, Stage::CatchingUp | Stage::Member);
        from != to && to != C && runs(from) && runs(to)
    }

    fn claims(&self, at: usize) -> Vector {
        if at == D { self.claimed } else { self.replicas[at].held }
    }

    fn next_hlc(&self, at: usize) -> u8 {
        let replica = &self.replicas[at];
        let admission = self.admission.filter(|_| at == D).map_or(0, |(_, hlc)| hlc);
        replica.held[at].max(replica.newest.map_or(0, |write| self.dot(write).0)).max(admission) + 1
    }

    /// Whether an interval of an origin holds an event, or reaches what anyone waits for. Between these nothing is
    /// told apart, so nothing else needs to be exchanged.
    fn tells(&self, after: u8, upto: u8, origin: usize) -> bool {
        let writes = WRITES.into_iter().map(|write| self.dot(write));
        let events = writes.filter(|(_, by)| *by == origin).map(|(hlc, _)| hlc);
        let removal = (origin == A).then_some(self.removal);
        let awaited = self.admission.map(|(_, hlc)| hlc);
        let mut hlcs = events.chain(removal).chain(awaited).chain([EPOCH]);
        hlcs.any(|hlc| after < hlc && hlc <= upto)
    }

    /// Where clocks end: at the epoch, or at the admission, which a joiner waits for.
    fn idle_until(&self, at: usize) -> u8 {
        let seen = self.admission.filter(|_| self.holds_admission(at));
        seen.map_or(EPOCH, |(_, hlc)| hlc.max(EPOCH))
    }

    /// An event of a replica, with its Hlc.
    fn event(&mut self, at: usize) -> u8 {
        let hlc = self.next_hlc(at);
        self.replicas[at].held[at] = hlc;
        self.claim();
        hlc
    }

    fn claim(&mut self) {
        if self.replicas[D].stage != Stage::Out {
            let held = self.replicas[D].held;
            self.claimed = std::array::from_fn(|origin| self.claimed[origin].max(held[origin]));
        }
    }

    /// The one door: the newer state stays.
    fn merge(&mut self, at: usize, write: Write) {
        let newer = |than: Option<Write>| than.is_none_or(|than| self.dot(than) < self.dot(write));
        let (entry, newest) = (newer(self.replicas[at].entry), newer(self.replicas[at].newest));
        let replica = &mut self.replicas[at];
        replica.entry = if entry { Some(write) } else { replica.entry };
        replica.newest = if newest { Some(write) } else { replica.newest };
    }

    fn write(&mut self, at: usize, write: Write) {
        self.issued[write as usize] = self.event(at);
        self.merge(at, write);
    }

    /// Below here a replica's log is not complete.
    fn floor(&self, rule: Rule, at: usize, origin: usize) -> u8 {
        // An origin that was admitted above the epoch has no events below, so its log is whole.
        let whole = origin == D && self.admission.is_some_and(|(_, hlc)| hlc > EPOCH);
        if whole && rule != Rule::FloorOfNewOrigin {
            return 0;
        }
        let base = self.copy.as_ref().filter(|_| at == D).map_or(0, |copy| copy.base[origin]);
        base.max(self.replicas[at].epoch)
    }

    /// The joiner was behind the epoch: it starts its copy again. Its own events stay, others have them.
    fn copy_anew(&mut self) {
        let own = self.replicas[D].held[D];
        self.replicas[D] = Replica { stage: Stage::Copying, ..Replica::default() };
        self.replicas[D].held[D] = own;
        self.copy = None;
    }

    fn salvage(&mut self, cut: u8) {
        let unseen = self.replicas[C].entry == Some(Write::Unsent) && self.dot(Write::Unsent).0 > cut;
        self.salvage = if unseen { Salvage::Waits } else { Salvage::Nothing };
        self.replicas[C].stage = Stage::Out;
    }

    /// Puts states together that differ only in what is never looked at again.
    pub(super) fn forget_what_no_longer_counts(&mut self) {
        for at in LASTING {
            let replica = &mut self.replicas[at];
            for from in 0..REPLICAS {
                if replica.held[from] >= replica.heard[from].own {
                    replica.heard[from].own = 0;
                }
            }
            if replica.epoch == EPOCH && replica.stage == Stage::Member {
                replica.heard = Default::default();
            }
        }
        if self.replicas[D].stage == Stage::Member {
            self.target = [0; REPLICAS];
        }
    }
}

impl Eviction {
    /// All steps. Each goes on towards agreement, the removal too, since C never takes in anything.
    pub(super) fn steps(&self, cluster: &Cluster, steps: &mut Vec<Step>) {
        let runs = |at: usize| cluster.replicas[at].stage == Stage::Member;
        if cluster.issued[Write::Delete as usize] == 0 && cluster.next_hlc(B) <= EPOCH {
            steps.push(Step::WriteDelete);
        }
        for at in 0..REPLICAS {
            let waits = at == A && cluster.removal == 0;
            if runs(at) && at != C && !waits && cluster.replicas[at].held[at] < cluster.idle_until(at) {
                steps.push(Step::Idle(at));
            }
            if runs(at) && at != C && cluster.replicas[at].epoch < EPOCH && self.stable(cluster, at) {
                steps.push(Step::Advance(at));
            }
            if self.drops(cluster, at) {
                steps.push(Step::Sweep(at));
            }
        }
        for link in 0..REPLICAS * REPLICAS {
            self.on_link(cluster, link / REPLICAS, link % REPLICAS, steps);
        }
        if cluster.removal == 0 {
            steps.push(Step::Remove);
        }
        self.coming_back(cluster, steps);
    }

    fn on_link(&self, cluster: &Cluster, from: usize, to: usize, steps: &mut Vec<Step>) {
        if !cluster.linked(from, to) {
            return;
        }
        let (sender, receiver) = (&cluster.replicas[from], &cluster.replicas[to]);
        let fenced = from == C && cluster.holds_removal(to);
        let own_only = from == C || from == D && self.play == Play::Return;
        let origins: &[usize] = if own_only { &[from] } else { &[from, C] };
        for &origin in origins {
            let below = receiver.held[origin] < cluster.floor(self.rule, from, origin);
            // A joiner is told that it is behind, and copies anew. A member would have to be rebuilt.
            let served = !below || receiver.stage == Stage::CatchingUp;
            let taken = !fenced || self.rule == Rule::NoFence;
            if cluster.tells(receiver.held[origin], sender.held[origin], origin) && served && taken {
                steps.push(Step::Exchange { from, to, origin });
            }
        }
        if fenced {
            return;
        }
        if sender.epoch > receiver.epoch {
            steps.push(Step::Adopt { from, to });
        }
        let asks = receiver.epoch < EPOCH || receiver.stage == Stage::CatchingUp;
        let about_the_cut = asks && cluster.holds_removal(to);
        if !about_the_cut && self.rule != Rule::CutOfAcknowledgements {
            return;
        }
        if self.rule == Rule::CutOfAcknowledgements {
            for origin in [A, C] {
                let heard = self.acknowledgement(cluster, from, to, origin);
                if heard != receiver.heard[from] {
                    steps.push(Step::Acknowledge { from, to, origin });
                }
            }
        } else if self.heartbeat(cluster, from, to) != receiver.heard[from] {
            steps.push(Step::Heartbeat { from, to });
        }
    }

    fn coming_back(&self, cluster: &Cluster, steps: &mut Vec<Step>) {
        let returns = self.play == Play::Return;
        let told = cluster.replicas[C].stage == Stage::Out;
        for at in [A, B] {
            let removed = cluster.holds_removal(at);
            if returns && removed && !told {
                steps.push(Step::Tell(at));
            }
            let may_admit = if returns { at == A && removed && told } else { at == B };
            if cluster.admission.is_none() && may_admit {
                steps.push(Step::Admit(at));
            }
            let early = self.rule == Rule::CopyBeforeAdmission && (!returns || told);
            let stage = cluster.replicas[D].stage;
            if cluster.copy.is_none() && (stage == Stage::Copying || stage == Stage::Out && early) {
                steps.push(Step::BeginCopy(at));
            }
            if self.rule == Rule::OldStoreMerged && removed {
                let old = cluster.replicas[C].entry;
                let newer = |than| old.is_some_and(|old| cluster.dot(than) < cluster.dot(old));
                if cluster.replicas[at].entry.is_none_or(newer) {
                    steps.push(Step::MergeOldStore(at));
                }
            }
        }
        match &cluster.copy {
            Some(copy) if !copy.row => steps.push(Step::CopyRow),
            Some(_) if cluster.replicas[D].stage == Stage::Copying && cluster.admission.is_some() => {
                steps.push(Step::EndCopy);
            }
            _ => {}
        }
        if cluster.replicas[D].stage == Stage::CatchingUp && self.caught_up(cluster) {
            steps.push(Step::Join);
        }
        if cluster.replicas[D].stage == Stage::Member && cluster.salvage == Salvage::Waits {
            steps.push(Step::Replay);
        }
    }

    /// Whether a replica finds that everyone holds everything up to the epoch.
    ///
    /// It goes by claims as they are now: those it knows lag, and reach any value that these had.
    fn stable(&self, cluster: &Cluster, at: usize) -> bool {
        let members = || cluster.members(at);
        let mut all = members().flat_map(|member| members().map(move |origin| (member, origin)));
        let removed = cluster.holds_removal(at);
        all.all(|(member, origin)| cluster.claims(member)[origin] >= EPOCH)
            && (!removed
                || self.cut(cluster, at).is_some()
                || members().all(|member| cluster.claims(member)[C] >= EPOCH))
    }

    /// The last event of C that anyone has, if a replica that holds the removal can tell.
    fn cut(&self, cluster: &Cluster, at: usize) -> Option<u8> {
        let replica = &cluster.replicas[at];
        let cut = replica.held[C];
        let agrees = |member: usize| {
            let heard = &replica.heard[member];
            let joiners_known = heard.own == 0 || self.rule == Rule::CutWithoutJoiners;
            heard.removal && heard.cut == cut && joiners_known
        };
        let known = match self.rule {
            Rule::CutOfOne | Rule::NoCut => true,
            _ => cluster.members(at).filter(|member| *member != at).all(agrees),
        };
        known.then_some(cut)
    }

    /// What a heartbeat tells a replica about the cut, if it asks itself about it.
    fn heartbeat(&self, cluster: &Cluster, from: usize, to: usize) -> Heartbeat {
        let sender = &cluster.replicas[from];
        let unknown = sender.held[from] > cluster.replicas[to].held[from];
        match cluster.holds_removal(from) {
            true => Heartbeat {
                removal: true,
                cut: sender.held[C],
                own: if unknown { sender.held[from] } else { 0 },
            },
            false => Heartbeat::default(),
        }
    }

    /// As a heartbeat, of which only one component counts.
    fn acknowledgement(&self, cluster: &Cluster, from: usize, to: usize, origin: usize) -> Heartbeat {
        let known = cluster.replicas[to].heard[from];
        match origin {
            C => Heartbeat { cut: cluster.replicas[from].held[C], ..known },
            _ => Heartbeat { removal: cluster.holds_removal(from) || known.removal, ..known },
        }
    }

    fn caught_up(&self, cluster: &Cluster) -> bool {
        let held = &cluster.replicas[D].held;
        let admitted = cluster.admission.map_or(0, |(_, hlc)| hlc);
        match self.rule {
            Rule::MemberEarly => (0..REPLICAS).all(|origin| held[origin] >= cluster.target[origin]),
            _ => {
                let mut others = cluster.members(D).filter(|origin| *origin != D);
                let cut_known = !cluster.holds_removal(D)
                    || self.cut(cluster, D).is_some()
                    || self.rule == Rule::MemberWithoutCut;
                others.all(|origin| held[origin] >= admitted) && cut_known
            }
        }
    }

    fn drops(&self, cluster: &Cluster, at: usize) -> bool {
        let replica = &cluster.replicas[at];
        let old = cluster.issued[Write::Delete as usize] <= replica.epoch;
        replica.entry == Some(Write::Delete) && old && replica.stage != Stage::Out
    }

    fn behind_unnoticed(&self) -> bool {
        matches!(self.rule, Rule::BehindUnnoticed | Rule::CopyBeforeAdmission)
    }

    pub(super) fn take(&self, before: &Cluster, cluster: &mut Cluster, step: Step) {
        match step {
            Step::WriteDelete => cluster.write(B, Write::Delete),
            Step::Idle(at) => {
                cluster.replicas[at].held[at] = before.idle_until(at);
                cluster.claim();
            }
            Step::Exchange { from, to, origin } => self.exchange(before, cluster, (from, to), origin),
            Step::Adopt { to, .. } => {
                if before.covers_epoch(to) || to == D && self.behind_unnoticed() {
                    cluster.replicas[to].epoch = EPOCH;
                } else if to == D {
                    cluster.copy_anew();
                }
            }
            Step::Advance(at) => cluster.replicas[at].epoch = EPOCH,
            Step::Sweep(at) => cluster.replicas[at].entry = None,
            Step::Heartbeat { from, to } => {
                cluster.replicas[to].heard[from] = self.heartbeat(before, from, to);
            }
            Step::Acknowledge { from, to, origin } => {
                cluster.replicas[to].heard[from] = self.acknowledgement(before, from, to, origin);
            }
            Step::Remove => cluster.removal = cluster.event(A),
            Step::Tell(at) => cluster.salvage(self.cut(before, at).unwrap_or(0)),
            Step::Admit(sponsor) => {
                cluster.admission = Some((sponsor, cluster.event(sponsor)));
                if self.rule == Rule::MemberEarly {
                    let [a, b] = [A, B].map(|at| cluster.replicas[at].held);
                    cluster.target = std::array::from_fn(|origin| a[origin].max(b[origin]));
                }
                cluster.replicas[D].stage = Stage::Copying;
            }
            Step::BeginCopy(source) => {
                let Replica { held, epoch, .. } = before.replicas[source];
                cluster.copy = Some(Session { source, base: held, epoch, row: false });
            }
            Step::CopyRow => {
                let copy = cluster.copy.as_mut().expect("the step is there for a copy");
                copy.row = true;
                let source = &before.replicas[copy.source];
                (cluster.replicas[D].entry, cluster.replicas[D].newest) = (source.entry, source.newest);
            }
            Step::EndCopy => self.end_copy(before, cluster),
            Step::Join => cluster.replicas[D].stage = Stage::Member,
            Step::Replay => self.replay(before, cluster),
            Step::MergeOldStore(at) => {
                before.replicas[C].entry.into_iter().for_each(|write| cluster.merge(at, write));
            }
        }
    }

    fn exchange(&self, before: &Cluster, cluster: &mut Cluster, (from, to): (usize, usize), origin: usize) {
        let (after, upto) = (before.replicas[to].held[origin], before.replicas[from].held[origin]);
        if after < before.floor(self.rule, from, origin) && !self.behind_unnoticed() {
            return cluster.copy_anew();
        }
        let mut events = WRITES.into_iter().map(|write| before.dot(write));
        let touched = events.any(|(hlc, by)| by == origin && after < hlc && hlc <= upto);
        if let Some(write) = before.replicas[from].entry.filter(|_| touched) {
            cluster.merge(to, write);
        }
        cluster.replicas[to].held[origin] = upto;
        cluster.claim();
    }

    fn end_copy(&self, before: &Cluster, cluster: &mut Cluster) {
        let copy = before.copy.as_ref().expect("the step is there for a copy");
        let joiner = &mut cluster.replicas[D];
        let own = joiner.held[D];
        joiner.held = copy.base;
        // What counts of it from now on is the floor of C's log here.
        let floor = std::array::from_fn(|origin| if origin == C { copy.base[C] } else { 0 });
        cluster.copy = Some(Session { source: A, base: floor, epoch: 0, row: true });
        joiner.held[D] = own;
        joiner.stage = Stage::CatchingUp;
        joiner.epoch =
            if self.rule == Rule::EpochOfBegin { copy.epoch } else { before.replicas[copy.source].epoch };
        if joiner.epoch == EPOCH && !cluster.covers_epoch(D) && !self.behind_unnoticed() {
            return cluster.copy_anew();
        }
        cluster.claim();
    }

    fn replay(&self, before: &Cluster, cluster: &mut Cluster) {
        let unsent = before.dot(Write::Unsent);
        let old = unsent.0 <= before.replicas[D].epoch && self.rule != Rule::OldWritesReplayed;
        let delete = before.dot(Write::Delete);
        let epoch = before.replicas.iter().map(|replica| replica.epoch).max();
        let too_late = delete > unsent && Some(delete.0) <= epoch;
        cluster.salvage = match before.replicas[D].entry {
            Some(current) if before.dot(current) >= unsent => Salvage::Superseded,
            None if old => Salvage::DeadLetter,
            _ if too_late => Salvage::AnewTooLate,
            _ => Salvage::Anew,
        };
        if matches!(cluster.salvage, Salvage::Anew | Salvage::AnewTooLate) {
            cluster.write(D, Write::Replayed);
        }
    }
}
