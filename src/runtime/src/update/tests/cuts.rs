//! Power fails anywhere: in `apply`, in `boot`, between and within the steps of a confirmation. After each of 10,000 failures
//! the device boots, what boots is a whole artifact, and the counter did not fall.

use super::device::{Chip, Vault};
use super::packer::package;
use super::*;
use crate::update::package::Op;
use crate::update::slots::{advanced, settle, trial_of};

const CUTS: u32 = 10_000;
const SLOT_BYTES: usize = 96 << 10;

/// Versions of a model, with counters that stay, rise, and of one older release fall.
fn versions() -> Vec<Vec<u8>> {
    let counters = [0, 0, 1, 1, 3, 2];
    let version = |(step, counter)| artifact(Layout::R4K4, &sections(Layout::R4K4, 5, step), counter);
    (0..).zip(counters).map(version).collect()
}

struct World {
    versions: Vec<Vec<u8>>,
    /// `packages[from][to]`
    packages: Vec<Vec<Vec<u8>>>,
    chip: Chip,
    vault: Vault,
    draws: Draws,
}

/// Where power failed, and what went well.
#[derive(Default, Debug)]
struct Tally {
    in_boot: u32,
    in_apply: u32,
    in_confirm: u32,
    applied: u32,
    resumed: u32,
    confirmed: u32,
    given_up: u32,
    refused: u32,
}

impl World {
    /// Every second size of block is of flash with error correction.
    fn new(block: usize) -> World {
        let versions = versions();
        let packages = versions
            .iter()
            .map(|from| {
                versions.iter().map(|to| package(from, to, |n| Op::ALL[(n as usize + block / 64) % 4])).collect()
            })
            .collect();
        let (mut chip, mut vault) = (Chip::new(SLOT_BYTES, block, block as u64), Vault::new(77));
        if block % 1024 == 512 || block == 16 << 10 {
            (chip, vault) = (chip.correcting(), vault.correcting());
        }
        chip.put(Slot::A, &versions[0]);
        install(&mut vault, Slot::A, &Header::from_bytes(&versions[0]).device_digest).expect("the first record");
        World { versions, packages, chip, vault, draws: Draws::new(block as u64) }
    }

    /// The version that a slot holds, every byte of it.
    fn version_in(&self, slot: Slot) -> Option<usize> {
        self.versions.iter().position(|version| self.chip.slots[slot as usize].starts_with(version))
    }

    fn boot(&mut self) -> Result<Boot, UpdateError> {
        boot(&mut self.chip, &mut self.vault, &mut |_| true, &mut [0; HEADER_BYTES])
    }

    /// What holds whenever the power comes back.
    fn check(&self, least_counter: u64) {
        let (mut chip, mut vault) = (self.chip.clone(), self.vault.clone());
        chip.power().on(None);
        vault.power.on(None);
        assert!(vault.counter >= least_counter, "the counter fell to {}", vault.counter);
        let slots = Slots::read(&mut vault).expect("a record");
        let active = self.version_in(slots.active).expect("the active slot holds a whole artifact");
        let confirmed = Header::from_bytes(&self.versions[active]).security_counter;
        assert!(vault.counter <= confirmed, "the counter is beyond what was confirmed");
        let mut world = World { chip, vault, versions: Vec::new(), packages: Vec::new(), draws: Draws::new(0) };
        let booted = world.boot().expect("it boots");
        assert!(self.version_in(booted.slot).is_some(), "{booted:?} is not a whole artifact");
    }

    /// One life of the device, from power to power.
    fn live(&mut self, tally: &mut Tally) {
        let steps = match self.draws.below(4) {
            0 | 1 => self.draws.below(8),
            _ => self.draws.below(900),
        };
        self.chip.power().on(Some(steps));
        // Both are of one supply: the vault's share is small, so that confirmations are cut too.
        let vault_steps = self.draws.below(5);
        self.vault.power.on(Some(vault_steps));
        let lost = |error: UpdateError| assert_eq!(error, UpdateError::Device);
        let booted = match self.boot() {
            Ok(booted) => booted,
            Err(error) => {
                tally.in_boot += 1;
                return lost(error);
            }
        };
        let version = self.version_in(booted.slot).expect("a whole artifact boots");
        let header = Header::from_bytes(&self.versions[version]);
        if booted.trial {
            match self.draws.below(4) {
                // It hangs, and the watchdog ends it.
                0 => {}
                1 => match reject(&mut self.vault) {
                    Ok(_) => tally.given_up += 1,
                    Err(error) => {
                        tally.in_confirm += 1;
                        lost(error);
                    }
                },
                _ => {
                    let slots = trial_of(&mut self.vault, &header);
                    match slots.and_then(|slots| settle(&mut self.vault, slots, header.security_counter)) {
                        Ok(slots) => {
                            assert_eq!((slots.active, slots.trial), (booted.slot, Trial::None));
                            tally.confirmed += 1;
                        }
                        Err(error) => {
                            tally.in_confirm += 1;
                            lost(error);
                        }
                    }
                }
            }
            return;
        }
        // The same package as in the life before, three times of four: then it goes on.
        let life = self.draws.count / 64;
        let to = (random_u64(3, life) % self.versions.len() as u64) as usize;
        let mut source = &self.packages[version][to][..];
        let mut memory = vec![0xa5; required_bytes(&mut source).expect("a sound head")];
        let counter = self.vault.counter;
        let device =
            Device { package: &mut source, flash: &mut self.chip, protected: &mut self.vault, trust: &mut |_| true };
        match apply(device, &mut memory) {
            Ok(applied) => {
                assert_eq!(self.version_in(applied.slot), Some(to), "what was applied");
                tally.applied += 1;
                tally.resumed += u32::from(applied.kept > 0);
            }
            Err(UpdateError::Rollback { device, artifact }) => {
                assert!(device == counter && artifact < counter);
                tally.refused += 1;
            }
            Err(error) => {
                tally.in_apply += 1;
                lost(error);
            }
        }
    }
}

#[test]
fn ten_thousand_power_cuts_leave_a_model_and_the_counter() {
    let mut tally = Tally::default();
    for block in [64, 512, 4096, 16 << 10] {
        let mut world = World::new(block);
        let mut counter = 0;
        let cuts = |tally: &Tally| tally.in_boot + tally.in_apply + tally.in_confirm;
        let before = cuts(&tally);
        while cuts(&tally) < before + CUTS / 4 {
            // A counter that has arrived at the top leaves nothing to update: a new device.
            if world.vault.counter >= 2 && world.draws.below(40) == 0 {
                let draws = Draws { stream: world.draws.stream, count: world.draws.count };
                world = World { draws, ..World::new(block) };
                counter = 0;
            }
            world.live(&mut tally);
            world.check(counter);
            counter = world.vault.counter;
        }
    }
    let Tally { in_boot, in_apply, in_confirm, applied, resumed, confirmed, given_up, refused } = tally;
    assert!(in_boot + in_apply + in_confirm >= CUTS);
    for (what, count) in [
        ("cuts in boot", in_boot),
        ("cuts in apply", in_apply),
        ("cuts in confirm", in_confirm),
        ("applied", applied),
        ("gone on with", resumed),
        ("confirmed", confirmed),
        ("given up", given_up),
        ("refused", refused),
    ] {
        assert!(count > 50, "{what}: {count}");
    }
}

#[test]
fn a_trial_that_is_never_confirmed_ends_after_three_boots() {
    let mut world = World::new(4096);
    let mut source = &world.packages[0][1][..];
    let mut memory = vec![0; required_bytes(&mut source).expect("a sound head")];
    let device =
        Device { package: &mut source, flash: &mut world.chip, protected: &mut world.vault, trust: &mut |_| true };
    let applied = apply(device, &mut memory).expect("it applies");
    assert_eq!((applied.slot, applied.kept), (Slot::B, 0));
    for left in (0..3).rev() {
        assert_eq!(world.boot(), Ok(Boot { slot: Slot::B, trial: true }));
        assert_eq!(Slots::read(&mut world.vault).expect("a record").tries_left, left);
    }
    assert_eq!(world.boot(), Ok(Boot { slot: Slot::A, trial: false }));
    assert_eq!(trial_of(&mut world.vault, &Header::from_bytes(&world.versions[1])), Err(UpdateError::NoTrial));
    // Nothing has to be written for a second trial of what is there.
    let mut source = &world.packages[0][1][..];
    let device =
        Device { package: &mut source, flash: &mut world.chip, protected: &mut world.vault, trust: &mut |_| true };
    let again = apply(device, &mut memory).expect("it applies");
    assert_eq!(again.kept, again.leaves);
    // While the trial runs, its slot is not written.
    world.boot().expect("it boots");
    let mut source = &world.packages[0][2][..];
    let device =
        Device { package: &mut source, flash: &mut world.chip, protected: &mut world.vault, trust: &mut |_| true };
    assert_eq!(apply(device, &mut memory), Err(UpdateError::TrialRuns));
}

#[test]
fn a_counter_that_could_not_be_raised_holds_all_the_same() {
    let mut world = World::new(512);
    let mut memory = vec![0; 1 << 17];
    let apply_to = |world: &mut World, from: usize, to: usize, memory: &mut [u8]| {
        let mut source = &world.packages[from][to][..];
        apply(
            Device {
                package: &mut source,
                flash: &mut world.chip,
                protected: &mut world.vault,
                trust: &mut |_: &[u8; HEADER_BYTES]| true,
            },
            memory,
        )
    };
    apply_to(&mut world, 0, 4, &mut memory).expect("it applies");
    world.boot().expect("it boots");
    let header = Header::from_bytes(&world.versions[4]);
    let slots = trial_of(&mut world.vault, &header).expect("it runs on trial");
    world.vault.busy = true;
    assert_eq!(settle(&mut world.vault, slots, header.security_counter), Err(UpdateError::Device));
    // What was confirmed stands: an older version is refused before the counter says so.
    assert_eq!(world.vault.counter, 0);
    let refused = apply_to(&mut world, 4, 5, &mut memory);
    assert_eq!(refused, Err(UpdateError::Rollback { device: 3, artifact: 2 }));
    assert_eq!(advanced(&mut world.vault, &header), Err(UpdateError::Device));
    world.vault.busy = false;
    assert_eq!(advanced(&mut world.vault, &header).map(|slots| slots.map(|slots| slots.active)), Ok(Some(Slot::B)));
    assert_eq!(world.vault.counter, 3);
    assert_eq!(advanced(&mut world.vault, &header), Ok(None));
}

#[test]
fn a_device_that_is_installed_again_runs_what_was_installed() {
    let mut world = World::new(512);
    let digest = |version: usize| Header::from_bytes(&world.versions[version]).device_digest;
    let digests = [digest(0), digest(1)];
    for _ in 0..57 {
        install(&mut world.vault, Slot::A, &digests[0]).expect("a record");
    }
    let installed = install(&mut world.vault, Slot::B, &digests[1]).expect("a record");
    assert_eq!(Slots::read(&mut world.vault), Ok(installed));
    assert!(installed.active == Slot::B && installed.holds(Slot::B, &digests[1]));
}

#[test]
fn a_slot_that_was_changed_is_not_booted() {
    let mut world = World::new(512);
    assert_eq!(world.boot(), Ok(Boot { slot: Slot::A, trial: false }));
    let digest = Header::from_bytes(&world.versions[3]).device_digest;
    world.chip.slots[0][DEVICE_DIGEST].copy_from_slice(&digest);
    assert_eq!(world.boot(), Err(UpdateError::OtherArtifact));
    world.vault.records = [[0; RECORD_BYTES]; 2];
    assert_eq!(world.boot(), Err(UpdateError::NoRecord));
}

#[test]
fn only_a_trusted_page_moves_the_counter() {
    let mut world = World::new(512);
    let page = &world.versions[2];
    world.chip.put(Slot::A, page);
    install(&mut world.vault, Slot::A, &Header::from_bytes(page).device_digest).expect("a record");
    let mut memory = [0; HEADER_BYTES];
    let refused = boot(&mut world.chip, &mut world.vault, &mut |_| false, &mut memory);
    assert_eq!((refused, world.vault.counter), (Err(UpdateError::Untrusted), 0));
    world.boot().expect("it boots");
    assert_eq!(world.vault.counter, 1);
}
