//! How replicas move from old sets to the new one.

use super::plan::{Work, by_size};
use super::size;

impl Work<'_> {
    pub(super) fn roll_out(&mut self, old_pods_run: bool) {
        if size::is_rolling(self.deployment) { self.roll() } else { self.recreate(old_pods_run) }
    }

    /// RollingUpdate: one step up or one step down; what follows comes with the next look.
    fn roll(&mut self) {
        let new = self.ensure_new();
        if self.grow_new(new) || self.shrink_old(new) {
            return;
        }
        if super::status::is_complete(self.deployment, &self.counted(new)) {
            self.clean_up();
        }
    }

    /// Recreate: everything old goes before anything new comes.
    fn recreate(&mut self, old_pods_run: bool) {
        let mut scaled = false;
        for index in self.old() {
            scaled |= size::replicas(&self.sets[index]) > 0 && self.resize(index, 0);
        }
        if scaled || old_pods_run {
            return;
        }
        let new = self.ensure_new();
        self.resize(new, size::wanted(self.deployment));
        if super::status::is_complete(self.deployment, &self.counted(new)) {
            self.clean_up();
        }
    }

    fn counted(&self, new: usize) -> k8s_openapi::api::apps::v1::DeploymentStatus {
        let now = jiff::Timestamp::UNIX_EPOCH;
        super::status::count(self.deployment, &self.sets, Some(&self.sets[new]), self.status.clone(), now)
    }

    fn grow_new(&mut self, new: usize) -> bool {
        let (has, wants) = (size::replicas(&self.sets[new]), size::wanted(self.deployment));
        let next = if has > wants { wants } else { size::next_new_size(self.deployment, self.total(), has) };
        has != next && self.resize(new, next)
    }

    fn shrink_old(&mut self, new: usize) -> bool {
        let mut old = self.old();
        old.retain(|index| size::replicas(&self.sets[*index]) > 0);
        if old.is_empty() {
            return false;
        }
        let least = size::wanted(self.deployment) - size::max_unavailable(self.deployment);
        let new_unavailable = size::replicas(&self.sets[new]) - self.stays(new);
        let spare = size::nearest(self.total() - i64::from(least) - i64::from(new_unavailable));
        if spare <= 0 {
            return false;
        }
        let unhealthy = self.remove_unhealthy(&old, spare);
        let healthy = self.remove_healthy(&old, least);
        unhealthy || healthy
    }

    /// Available replicas that stay. A set that was made smaller just now still counts the ones that it is about to lose.
    fn stays(&self, index: usize) -> i32 {
        size::available(&self.sets[index]).min(size::replicas(&self.sets[index]))
    }

    /// Replicas that are not available can go without harm.
    fn remove_unhealthy(&mut self, old: &[usize], mut spare: i32) -> bool {
        let mut any = false;
        for index in old {
            let (has, available) = (size::replicas(&self.sets[*index]), self.stays(*index));
            let remove = spare.min(has - available);
            if remove > 0 {
                spare -= remove;
                any |= self.resize(*index, has - remove);
            }
        }
        any
    }

    /// Replicas that are available can go as far as enough others are.
    fn remove_healthy(&mut self, old: &[usize], least: i32) -> bool {
        let available: i64 = (0..self.sets.len()).map(|index| i64::from(self.stays(index))).sum();
        let mut spare = size::nearest(available - i64::from(least));
        let mut any = false;
        for index in old {
            let has = size::replicas(&self.sets[*index]);
            let remove = spare.min(has);
            if remove > 0 {
                spare -= remove;
                any |= self.resize(*index, has - remove);
            }
        }
        any
    }

    /// The deployment's size changed, or it is paused: keeps the proportions of the sets.
    pub(super) fn scale(&mut self) {
        let wanted = size::wanted(self.deployment);
        let active: Vec<usize> = (0..self.sets.len()).filter(|index| size::replicas(&self.sets[*index]) > 0).collect();
        match active.as_slice() {
            [] => {
                if let Some(latest) = self.new.or_else(|| self.old().last().copied()) {
                    self.resize(latest, wanted);
                }
            }
            [only] => {
                self.resize(*only, wanted);
            }
            _ if self.new.is_some_and(|new| size::is_saturated(self.deployment, &self.sets[new])) => {
                let new = self.new;
                for index in active.into_iter().filter(|index| Some(*index) != new) {
                    self.resize(index, 0);
                }
            }
            _ if size::is_rolling(self.deployment) => self.scale_proportionally(active),
            _ => {}
        }
    }

    fn scale_proportionally(&mut self, active: Vec<usize>) {
        let wanted = size::wanted(self.deployment);
        let allowed = if wanted > 0 { size::limit(self.deployment) } else { 0 };
        let to_add = size::nearest(allowed - self.total());
        let order = by_size(self, active, to_add > 0);
        let mut added = 0;
        let mut sizes = Vec::with_capacity(order.len());
        for index in &order {
            let share = size::proportion(self.deployment, &self.sets[*index], to_add, added);
            added += share;
            sizes.push(size::replicas(&self.sets[*index]) + share);
        }
        if let Some(largest) = sizes.first_mut() {
            *largest = size::nearest(i64::from(*largest) + i64::from(to_add) - i64::from(added)).max(0);
        }
        for (index, size) in order.into_iter().zip(sizes) {
            self.resize(index, size);
        }
    }
}
