//! What was tried, and what came of it.

use std::collections::BTreeMap;
use std::fmt;

use crate::area::{Area, Areas};
use crate::damage::Damage;
use crate::scenario::Scenario;

/// Counts of everything that was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cover {
    /// Lives recorded, by scenario.
    pub lives: BTreeMap<Scenario, u64>,
    /// Places on their tapes where the power was cut, by what was in the air.
    pub points: BTreeMap<Areas, u64>,
    /// Those of which every possible image was opened.
    pub points_exhausted: u64,
    /// Images opened that differ from each other.
    pub images: u64,
    /// Those in which writes changed their order.
    pub reordered: u64,
    /// Images on which a store went on, until the next power cut and beyond.
    pub resumed: u64,
    /// Damaged images, by kind and place of the damage, and what came of them.
    pub damaged: BTreeMap<(Damage, Area, String), u64>,
}

impl Cover {
    /// Adds what another run tried.
    pub fn add(&mut self, other: &Cover) {
        add_all(&mut self.lives, &other.lives);
        add_all(&mut self.points, &other.points);
        add_all(&mut self.damaged, &other.damaged);
        self.points_exhausted += other.points_exhausted;
        self.images += other.images;
        self.reordered += other.reordered;
        self.resumed += other.resumed;
    }

    /// All places where the power was cut.
    pub fn points_all(&self) -> u64 {
        self.points.values().sum()
    }

    /// All damaged images.
    pub fn damaged_all(&self) -> u64 {
        self.damaged.values().sum()
    }

    /// Damaged images by what came of them.
    pub fn outcomes(&self) -> BTreeMap<&str, u64> {
        let mut outcomes = BTreeMap::new();
        for ((_, _, outcome), count) in &self.damaged {
            *outcomes.entry(outcome.as_str()).or_default() += count;
        }
        outcomes
    }
}

fn add_all<K: Ord + Clone>(sums: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, count) in more {
        *sums.entry(key.clone()).or_default() += count;
    }
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "lives            {}", self.lives.values().sum::<u64>())?;
        for (scenario, count) in &self.lives {
            writeln!(f, "  {:<28} {count}", scenario.name())?;
        }
        let (points, exhausted) = (self.points_all(), self.points_exhausted);
        writeln!(f, "crash points     {points}, {exhausted} of them with every possible image")?;
        for (areas, count) in &self.points {
            writeln!(f, "  {:<28} {count}", format!("in the air: {}", areas.name()))?;
        }
        writeln!(f, "images opened    {}, {} with writes reordered", self.images, self.reordered)?;
        writeln!(f, "went on and on   {}", self.resumed)?;
        writeln!(f, "damaged images   {}", self.damaged_all())?;
        let mut places: BTreeMap<(Damage, Area), Vec<String>> = BTreeMap::new();
        for ((damage, area, outcome), count) in &self.damaged {
            places.entry((*damage, *area)).or_default().push(format!("{outcome} {count}"));
        }
        for ((damage, area), outcomes) in places {
            let what = format!("{} in {}", damage.name(), area.name());
            writeln!(f, "  {what:<28} {}", outcomes.join(", "))?;
        }
        Ok(())
    }
}
