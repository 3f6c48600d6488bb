/**
 * What can be wrong with a folder whose files a web server sends.
 *
 * @module
 */

import { createFinding, type FindingOf } from "./finding.ts";
import type { User } from "./user.ts";

/** All kinds of findings. Words in braces are replaced. */
export const FOLDER_FINDINGS = {
  "files-denied": {
    what: "{user} may not enter {path}, so that no file of {folder} is sent",
    advice:
      "Copy the files to where all users may read them, such as /srv, and name that folder; or let others in: chmod {who}+x {path}",
  },
} as const;

/** A fault of a folder. */
export type FolderFinding = FindingOf<keyof typeof FOLDER_FINDINGS>;

/** Finds that a web server may not enter a folder. To it such a file is as one that is absent: the app gets the request. */
export function examineFolder(folder: string, user: User): FolderFinding[] {
  return user.barriers(folder).slice(0, 1).map((path) =>
    createFinding(FOLDER_FINDINGS, "files-denied", {
      user: user.name,
      folder,
      path,
      who: user.classOf(path),
    })
  );
}
