import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { versionOf } from './conformance.ts'

const run = promisify(execFile)

/** Installs those of Debian's programs that are missing, as root and where there is apt-get. Never fails: who misses one says so. */
export async function installPrograms(programs: readonly string[]): Promise<void> {
  const versions = await Promise.all(programs.map(versionOf))
  const missing = programs.filter((_, n) => versions[n] === undefined)
  if (missing.length === 0 || process.getuid?.() !== 0) return
  // The run level keeps a package from starting its service.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  const quick = ['-qq', '-o', 'Acquire::Retries=1', '-o', 'Acquire::http::Timeout=20', '-o', 'DPkg::Lock::Timeout=60']
  const apt = (...args: string[]) => run('apt-get', [...quick, ...args], { env, timeout: 180_000 }).catch(() => {})
  console.error(`installing the system packages ${missing.join(', ')} (apt-get, once) ...`)
  await apt('update')
  await apt('install', '-y', '--no-install-recommends', ...missing)
}
