import { assert } from "@std/assert";
import type { Rig } from "./harness.ts";

/** A certificate for localhost, where certbot would have put it. */
export class Certificate {
  /** The folder of fullchain.pem and privkey.pem. */
  readonly folder: string;
  readonly #authority: string;

  constructor(rig: Rig) {
    this.folder = `${rig.dir}/live`;
    rig.write("live/extensions", "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n");
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    this.#openssl(
      ...["req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test"],
    );
    this.#openssl(
      ...["req", "-new", ...key, "-keyout", "privkey.pem", "-out", "request.pem"],
      ...["-subj", "/CN=localhost"],
    );
    this.#openssl(
      ...["x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key"],
      ...["-CAcreateserial", "-extfile", "extensions", "-out", "fullchain.pem"],
    );
    this.#authority = Deno.readTextFileSync(`${this.folder}/ca.pem`);
  }

  #openssl(...args: string[]): void {
    const { success, stderr } = new Deno.Command("openssl", { args, cwd: this.folder })
      .outputSync();
    assert(success, new TextDecoder().decode(stderr));
  }

  /** Returns a client that trusts it. */
  client(): Deno.HttpClient {
    return Deno.createHttpClient({ caCerts: [this.#authority] });
  }
}
