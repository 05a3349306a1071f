//! Things with a short name that is never used again: a place and the generation of what is in it.
//!
//! A name outlives its thing safely: it finds nothing once the thing is gone, also when the place is taken again.

/// The name of one thing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name {
    place: u32,
    generation: u32,
}

impl Name {
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.place)
    }

    pub fn from_u64(bits: u64) -> Name {
        Name { place: bits as u32, generation: (bits >> 32) as u32 }
    }
}

#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, thing: T) -> Name {
        match self.free.pop() {
            Some(place) => {
                let entry = &mut self.entries[place as usize];
                entry.1 = Some(thing);
                Name { place, generation: entry.0 }
            }
            None => {
                let place = self.entries.len() as u32;
                self.entries.push((0, Some(thing)));
                Name { place, generation: 0 }
            }
        }
    }

    pub fn get(&self, name: Name) -> Option<&T> {
        let (generation, thing) = self.entries.get(name.place as usize)?;
        thing.as_ref().filter(|_| *generation == name.generation)
    }

    pub fn get_mut(&mut self, name: Name) -> Option<&mut T> {
        let (generation, thing) = self.entries.get_mut(name.place as usize)?;
        thing.as_mut().filter(|_| *generation == name.generation)
    }

    pub fn remove(&mut self, name: Name) -> Option<T> {
        let (generation, thing) = self.entries.get_mut(name.place as usize)?;
        if *generation != name.generation {
            return None;
        }
        let removed = thing.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(name.place);
        Some(removed)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Name, &T)> {
        let things = self.entries.iter().zip(0..);
        things.filter_map(|((generation, thing), place)| {
            Some((Name { place, generation: *generation }, thing.as_ref()?))
        })
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().filter_map(|(_, thing)| thing.as_mut())
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_finds_only_its_own_thing() {
        let mut slab = Slab::default();
        let first = slab.insert("first");
        assert_eq!(slab.get(first), Some(&"first"));
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_ne!(first, second);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(Name::from_u64(second.to_u64())), Some(&"second"));
        assert_eq!(slab.len(), 1);
    }
}
