//! A device in memory that runs artifacts which slmc compiled and signed: the whole way from a package to a confirmed model,
//! with the trust of the firmware's key, the golden prompts and a health check.

use super::artifacts;
use crate::fixture::Family;
use crate::support::succeed;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::{HEADER_BYTES, Header};
use slm_runtime::trust::{Check, Software, Trust};
use slm_runtime::update::{
    Boot, Device, DeviceFailed, Flash, Protected, RECORD_BYTES, Slot, Slots, Trial, UpdateError, apply, boot, confirm,
    install, reject, required_bytes,
};
use slmc::artifact::host::SessionMemory;
use slmc::machine::kernels::kernels_for;
use slmc::trust::PublicKey;
use slmc::trust::signing::runtime_key;
use std::fs;

struct Memory {
    slots: [Vec<u8>; 2],
}

impl Flash for Memory {
    fn slot_bytes(&self) -> u64 {
        self.slots[0].len() as u64
    }

    fn erase_block_bytes(&self) -> u32 {
        4096
    }

    fn read(&mut self, slot: Slot, offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed> {
        let from = self.slots[slot as usize].get(offset as usize..offset as usize + into.len());
        into.copy_from_slice(from.ok_or(DeviceFailed)?);
        Ok(())
    }

    fn erase(&mut self, slot: Slot, offset: u64) -> Result<(), DeviceFailed> {
        self.slots[slot as usize][offset as usize..offset as usize + 4096].fill(0xff);
        Ok(())
    }

    fn write(&mut self, slot: Slot, offset: u64, bytes: &[u8]) -> Result<(), DeviceFailed> {
        self.slots[slot as usize][offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// Records and counter, which are not in the slots' flash.
struct Vault<'m>(&'m mut [[u8; RECORD_BYTES]; 2], &'m mut u64);

impl Protected for Vault<'_> {
    fn read_record(&mut self, copy: usize, into: &mut [u8; RECORD_BYTES]) -> Result<(), DeviceFailed> {
        *into = self.0[copy];
        Ok(())
    }

    fn write_record(&mut self, copy: usize, record: &[u8; RECORD_BYTES]) -> Result<(), DeviceFailed> {
        self.0[copy] = *record;
        Ok(())
    }

    fn counter(&mut self) -> Result<u64, DeviceFailed> {
        Ok(*self.1)
    }

    fn advance_counter(&mut self, to: u64) -> Result<(), DeviceFailed> {
        *self.1 = to;
        Ok(())
    }
}

#[test]
fn a_device_tries_gives_up_and_confirms() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    artifacts(at, Family::TiedLlama, "w4", "5");
    succeed(at, "sign old.slm --key k.pem --counter 4");
    succeed(at, "update pack old.slm new.slm -o up.slmu");
    let key = PublicKey::read("k.pub", at).expect("a key");
    let raw = key.to_raw();
    let keys = [runtime_key(&key, &raw).expect("a key of the runtime")];
    let [old, new, package] = ["old.slm", "new.slm", "up.slmu"].map(|name| fs::read(at.join(name)).expect("there"));

    let mut flash = Memory { slots: [vec![0; 1 << 20], vec![0xff; 1 << 20]] };
    flash.slots[0][..old.len()].copy_from_slice(&old);
    let (mut records, mut counter) = ([[0xff; RECORD_BYTES]; 2], 4);
    let mut vault = Vault(&mut records, &mut counter);
    install(&mut vault, Slot::A, &Header::from_bytes(&old).device_digest).expect("a record");
    let trust = Trust { keys: &keys, threshold: 1, model_id: None, counter: &0, verifier: &Software };
    let trusted = |page: &[u8; HEADER_BYTES]| trust.check_page(page).is_ok();
    let mut page = [0; HEADER_BYTES];

    let mut source = &package[..];
    let mut memory = vec![0; required_bytes(&mut source).expect("sound")];
    // Another firmware's key: refused before anything is written.
    let mut stranger = |_: &[u8; HEADER_BYTES]| false;
    let before = flash.slots[1].clone();
    let device = Device { package: &mut source, flash: &mut flash, protected: &mut vault, trust: &mut stranger };
    assert_eq!(apply(device, &mut memory), Err(UpdateError::Untrusted));
    assert!(flash.slots[1] == before);

    for attempt in 0..2 {
        let mut source = &package[..];
        let mut known = trusted;
        let device = Device { package: &mut source, flash: &mut flash, protected: &mut vault, trust: &mut known };
        let applied = apply(device, &mut memory).expect("it applies");
        assert_eq!(applied.kept, if attempt == 0 { 0 } else { applied.leaves });
        let booted = boot(&mut flash, &mut vault, &mut trusted.clone(), &mut page).expect("it boots");
        assert_eq!(booted, Boot { slot: Slot::B, trial: true });
        let device_bytes = Header::from_bytes(&new).device_bytes as usize;
        let running = flash.slots[1][..device_bytes].to_vec();
        assert!(running == new[..device_bytes]);
        let signed = ArtifactView::open_signed(&running, &trust, Check::Everything).expect("signed by this key");
        let view = signed.artifact().expect("checked");
        let kernels = kernels_for(view.layout());
        let mut session = SessionMemory::for_artifact(view);
        // The old artifact cannot be confirmed in the new one's place.
        let other = ArtifactView::open(&old).expect("sound");
        let refused = confirm(&mut vault, &other, kernels, session.as_mut_slice(), &mut || true);
        assert_eq!(refused, Err(UpdateError::OtherArtifact));
        let unwell = confirm(&mut vault, view, kernels, session.as_mut_slice(), &mut || false);
        assert_eq!((unwell, *vault.1), (Err(UpdateError::Health), 4));
        let short = confirm(&mut vault, view, kernels, &mut [], &mut || panic!("asked too early"));
        assert_eq!(short, Err(UpdateError::SelfTest));
        if attempt == 0 {
            reject(&mut vault).expect("a record");
            let booted = boot(&mut flash, &mut vault, &mut trusted.clone(), &mut page).expect("it boots");
            assert_eq!(booted, Boot { slot: Slot::A, trial: false });
            continue;
        }
        let slots = confirm(&mut vault, view, kernels, session.as_mut_slice(), &mut || true).expect("it is well");
        assert_eq!((slots.active, slots.trial, *vault.1), (Slot::B, Trial::None, 5));
        let booted = boot(&mut flash, &mut vault, &mut trusted.clone(), &mut page).expect("it boots");
        assert_eq!(booted, Boot { slot: Slot::B, trial: false });
        assert_eq!(Slots::read(&mut vault).expect("a record").active, Slot::B);
    }
}
