/** A Deno in a folder of its own that can be replaced, as by an upgrade of its package. */
export class ReplaceableDeno implements AsyncDisposable {
  readonly #folder: string = Deno.makeTempDirSync();
  readonly path: string = `${this.#folder}/deno`;

  static async install(): Promise<ReplaceableDeno> {
    const deno = new ReplaceableDeno();
    await deno.add();
    return deno;
  }

  async add(): Promise<void> {
    await Deno.link(Deno.execPath(), this.path)
      .catch(() => Deno.copyFile(Deno.execPath(), this.path));
  }

  async remove(): Promise<void> {
    await Deno.remove(this.path);
  }

  async replace(): Promise<void> {
    await this.remove();
    await this.add();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.#folder, { recursive: true });
  }
}
