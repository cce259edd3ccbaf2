// The programs that tests drive and npm cannot bring. As root on Debian they are installed, elsewhere their tests skip.
import { existsSync } from 'node:fs'
import path from 'node:path'
import { run } from './lib.mjs'

const programs = [
  { names: ['chromium', 'chromium-browser', 'google-chrome'], debian: 'chromium', needed: 'tests in a real browser' },
  { names: ['curl'], debian: 'curl', needed: 'tests with curl' },
  { names: ['nginx'], debian: 'nginx-light', needed: 'tests behind nginx' },
  { names: ['haproxy'], debian: 'haproxy', needed: 'tests behind haproxy' },
  { names: ['caddy'], debian: 'caddy', needed: 'tests behind caddy' },
]

/** Installs what is missing where that is possible, says what is not, and never fails. */
export async function installSystemPrograms() {
  const missing = programs.filter(({ names }) => !names.some(onPath))
  if (missing.length === 0) return
  const packages = missing.map(({ debian }) => debian)
  let reason = 'only root on a system with apt-get can install them here'
  if (process.getuid?.() === 0 && onPath('apt-get')) {
    console.log(`  installing the system packages ${packages.join(', ')} (apt-get, once; about a minute) ...`)
    reason = await aptInstall(packages)
  }
  for (const { names, needed } of missing) {
    if (!names.some(onPath)) console.log(`  ${names[0]} is missing, so ${needed} will be skipped: ${reason}`)
  }
}

const onPath = (name) =>
  process.env.PATH.split(path.delimiter)
    .concat('/usr/sbin')
    .some((folder) => existsSync(path.join(folder, name)))

async function aptInstall(packages) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const quick = ['-qq', '-o', 'Acquire::Retries=1', '-o', 'Acquire::http::Timeout=20', '-o', 'DPkg::Lock::Timeout=60']
  const update = await run('apt-get', [...quick, 'update'], { env })
  // A stale list often still serves, so only the installation decides.
  const install = await run('apt-get', [...quick, 'install', '-y', '--no-install-recommends', ...packages], { env })
  const failed = [install, update].find(({ code }) => code !== 0)
  return failed ? failed.output.trim().split('\n').at(-1) : 'apt-get installed no such program'
}

if (import.meta.filename === process.argv[1]) await installSystemPrograms()
