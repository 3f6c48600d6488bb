/** Returns the paths of all TypeScript files of a folder, which ends in a slash. */
export function sourcesIn(root: URL, folder: string): string[] {
  return [...Deno.readDirSync(new URL(folder, root))]
    .flatMap(({ name, isDirectory }) => {
      if (isDirectory) return sourcesIn(root, `${folder}${name}/`);
      return name.endsWith(".ts") ? [folder + name] : [];
    })
    .sort();
}
