import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'

/** The folder of this package: its code runs from `dist`, and from `build/src` in tests. */
export const packageFolder: string = folderAbove(import.meta.dirname)

/** The version in package.json. */
export function packageVersion(): string {
  const manifest = JSON.parse(readFileSync(path.join(packageFolder, 'package.json'), 'utf8')) as { version: string }
  return manifest.version
}

function folderAbove(folder: string): string {
  return existsSync(path.join(folder, 'package.json')) ? folder : folderAbove(path.dirname(folder))
}
