/** Finds PHP-FPM, whose file name contains its version. */
function findFPM(): string {
  const folder = "/usr/sbin";
  try {
    for (const { name } of Deno.readDirSync(folder)) {
      if (/^php-fpm[\d.]*$/.test(name)) return `${folder}/${name}`;
    }
  } catch {
    // PHP-FPM is not installed.
  }
  return `${folder}/php-fpm`;
}

/** The path of PHP-FPM. */
export const PHP_FPM: string = findFPM();
