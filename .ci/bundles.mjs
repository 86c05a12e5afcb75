// Verifies Sigstore bundles with @sigstore/verify, offline and by a plain public key, as `.ci/weekly trust` asks:
//
//     node .ci/bundles.mjs MODULES KEY.pub BUNDLE…
//
// MODULES is a directory in which npm installed @sigstore/verify and @sigstore/bundle. Ends with 1 at the first bundle that
// does not hold.
import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [modules, key, ...bundles] = process.argv.slice(2);
const require = createRequire(resolve(modules, "package.json"));
const { bundleFromJSON } = require("@sigstore/bundle");
const { Verifier, toSignedEntity } = require("@sigstore/verify");

const publicKey = createPublicKey(readFileSync(key));
const material = {
  certificateAuthorities: [],
  timestampAuthorities: [],
  tlogs: [],
  ctlogs: [],
  publicKey: () => ({ publicKey, validFor: () => true }),
};
const verifier = new Verifier(material, { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 });
if (bundles.length === 0) throw new Error("there are no bundles");
for (const path of bundles) {
  try {
    verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(readFileSync(path, "utf8")))));
    console.log(`${path}: holds`);
  } catch (error) {
    console.log(`${path}: ${error.message}`);
    process.exit(1);
  }
}
