/** PHP-FPM, whose file has its version in its name. */
function findFPM(): string {
  const folder = "/usr/sbin";
  try {
    for (const { name } of Deno.readDirSync(folder)) {
      if (/^php-fpm[\d.]*$/.test(name)) return `${folder}/${name}`;
    }
  } catch {
    // Then it is missing.
  }
  return `${folder}/php-fpm`;
}

/** The program. */
export const PHP_FPM: string = findFPM();
