import { execFileSync } from 'node:child_process'
import { rmdirSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { TestContext } from 'node:test'

const isRoot = process.platform === 'linux' && process.getuid?.() === 0

/** Why tests with disks of their own are skipped; `false` where they run. */
export const noDisks: string | false = isRoot ? false : 'mounting a small disk takes root on Linux'

/** A disk of `megabytes` in memory, which goes with the test; and the path of a log on it. */
export async function smallDisk(
  t: TestContext,
  megabytes: number,
): Promise<{ folder: string; file: string } | undefined> {
  const folder = await mkdtemp(path.join(tmpdir(), 'spillway-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'spillway-test', folder], { stdio: 'pipe' })
  } catch (error) {
    rmdirSync(folder)
    t.skip(`cannot mount a disk: ${(error as Error).message}`)
    return undefined
  }
  t.after(() => {
    execFileSync('umount', ['--lazy', folder])
    rmdirSync(folder)
  })
  return { folder, file: path.join(folder, 'log.db') }
}
