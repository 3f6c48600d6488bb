/**
 * What `doctor` finds: texts without control characters.
 *
 * @module
 */

import { printable } from "../../io/printable.ts";

/** One kind of finding. Words in braces are replaced. */
export interface FindingKind {
  /** The fault. */
  what: string;
  /** What to do if no line of shell fixes it. */
  advice: string;
}

/** A fault that `doctor` has found. Its texts have no control characters. */
export interface FindingOf<Id extends string = string> {
  /** Its kind. */
  id: Id;
  /** The fault. */
  what: string;
  /** The line of shell that fixes it, if there is one. */
  line: string | undefined;
  /** What to do if there is no line. */
  advice: string;
}

/**
 * Creates a finding.
 *
 * @param kinds All kinds, by their names.
 * @param values What replaces the words in braces.
 * @param line The line of shell that fixes it.
 */
export function createFinding<Id extends string>(
  kinds: Record<Id, FindingKind>,
  id: Id,
  values: Record<string, string> = {},
  line?: string,
): FindingOf<Id> {
  const fill = (text: string) =>
    printable(text.replaceAll(/\{(\w+)\}/g, (braces, name: string) => values[name] ?? braces));
  const { what, advice } = kinds[id];
  return { id, what: fill(what), advice: fill(advice), line };
}

/** Prints findings. */
export function printFindings(findings: FindingOf[]): void {
  if (findings.length === 0) console.log("\nNothing is wrong.");
  findings.forEach(printFinding);
}

/** Prints a finding. */
export function printFinding({ id, what, line, advice }: FindingOf): void {
  console.log(`\n${what} [${id}]\n${line === undefined ? `  ${advice}` : `    ${line}`}`);
}
