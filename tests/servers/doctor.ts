import { main } from "../../cli.ts";

/** What doctor has found. */
export interface Diagnosis {
  code: number;
  stdout: string;
  /** The kinds of findings. */
  ids: string[];
  /** The first line of shell. */
  line: string | undefined;
}

/** Runs doctor in this process. */
export async function doctor(...args: string[]): Promise<Diagnosis> {
  const { log } = console;
  let stdout = "";
  console.log = (text = "") => stdout += `${text}\n`;
  try {
    const code = await main(["doctor", ...args]);
    const ids = [...stdout.matchAll(/ \[([a-z-]+)\]$/gm)].map(([, id]) => id);
    return { code, stdout, ids, line: /^ {4}(.+)$/m.exec(stdout)?.[1] };
  } finally {
    console.log = log;
  }
}
