// The programs that tests drive and npm cannot bring. As root on Debian they are installed, elsewhere their tests skip.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { root, run } from './lib.mjs'

const programs = [
  { names: ['chromium', 'chromium-browser', 'google-chrome'], debian: 'chromium', needed: 'tests in a real browser' },
  { names: ['curl'], debian: 'curl', needed: 'tests with curl' },
  { names: ['nginx'], debian: 'nginx-light', needed: 'tests behind nginx' },
  { names: ['haproxy'], debian: 'haproxy', needed: 'tests behind haproxy' },
  { names: ['caddy'], debian: 'caddy', needed: 'tests behind caddy' },
  { names: ['postgres', 'pg_ctlcluster'], debian: 'postgresql', needed: 'tests of the log in PostgreSQL' },
  { names: ['ip'], debian: 'iproute2', needed: 'tests of networks that are cut' },
  { names: ['nft'], debian: 'nftables', needed: 'tests of networks that are cut' },
]

/**
 * Versions of nats-server that tests drive: this Debian's, and those of later ones, since some promises need 2.10.23, and
 * clusters of 2.11 and newer store in another way. That of forky still changes: it is taken as long as it is the one that the
 * tests know. Their packages are unpacked and not installed, so that no server is started and nothing of the machine changes.
 */
const natsReleases = [{}, { release: 'trixie' }, { release: 'forky', version: '2.15.*' }]
const engines = path.join(root, 'node_modules', '.spillway-engines')

/** Installs what is missing where that is possible, says what is not, and never fails. */
export async function installSystemPrograms() {
  await installPrograms()
  await fetchNats()
}

async function installPrograms() {
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

const quick = ['-qq', '-o', 'Acquire::Retries=1', '-o', 'Acquire::http::Timeout=20', '-o', 'DPkg::Lock::Timeout=60']

async function aptInstall(packages) {
  // The run level of a system without services: what is installed must not start its own.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  const update = await run('apt-get', [...quick, 'update'], { env })
  // A stale list often still serves, so only the installation decides.
  const install = await run('apt-get', [...quick, 'install', '-y', '--no-install-recommends', ...packages], { env })
  const failed = [install, update].find(({ code }) => code !== 0)
  return failed ? failed.output.trim().split('\n').at(-1) : 'apt-get installed no such program'
}

async function fetchNats() {
  const missing = natsReleases.filter(isMissing)
  if (missing.length === 0) return
  const canFetch = onPath('apt-get') && onPath('dpkg')
  if (canFetch) console.log('  fetching nats-server (apt-get, once; some seconds) ...')
  for (const wanted of missing) {
    const reason = canFetch ? await fetchDebian('nats-server', wanted) : 'only a Debian with apt-get has its packages'
    if (!isMissing(wanted)) continue
    const { release = '(this one)', version } = wanted
    const name = version ? `nats-server ${version}` : 'nats-server'
    console.log(`  ${name} of Debian ${release} is missing, so tests with it will be skipped: ${reason}`)
  }
}

const isMissing = ({ release = 'system' }) => !existsSync(path.join(engines, release, 'usr/sbin/nats-server'))

/** Unpacks a package of the Debian that this is, or of another release. Answers why not. */
async function fetchDebian(name, { release, version }) {
  const temporary = mkdtempSync(path.join(os.tmpdir(), 'spillway-apt-'))
  try {
    const options = [...quick, ...aptOptions(temporary, release)]
    await run('apt-get', [...options, 'update'], { cwd: temporary })
    const file = version ? `${name}=${version}` : name
    const download = await run('apt-get', [...options, 'download', file], { cwd: temporary })
    const archive = readdirSync(temporary).find((entry) => entry.endsWith('.deb'))
    if (!archive) return download.output.trim().split('\n').at(-1)
    const folder = path.join(engines, release ?? 'system')
    mkdirSync(folder, { recursive: true })
    const unpacked = await run('dpkg', ['-x', path.join(temporary, archive), folder])
    return unpacked.code === 0 ? undefined : unpacked.output.trim()
  } finally {
    rmSync(temporary, { recursive: true })
  }
}

/** Lists and archives in a folder of their own, so that it takes no root; from the machine's own sources, named for `release`. */
function aptOptions(folder, release) {
  for (const name of ['lists/partial', 'cache/archives/partial', 'sources']) {
    mkdirSync(path.join(folder, name), { recursive: true })
  }
  const own = `-o Dir::State::lists=${folder}/lists -o Dir::Cache=${folder}/cache -o APT::Sandbox::User=root`.split(' ')
  const codename = /^VERSION_CODENAME=(.*)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  if (release === undefined || release === codename) return own
  const parts = '/etc/apt/sources.list.d'
  const files = [
    '/etc/apt/sources.list',
    ...(existsSync(parts) ? readdirSync(parts).map((name) => path.join(parts, name)) : []),
  ]
  for (const file of files.filter((name) => existsSync(name) && /debian\.sources$|sources\.list$/.test(name))) {
    const text = readFileSync(file, 'utf8').replaceAll(codename, release)
    writeFileSync(path.join(folder, 'sources', path.basename(file)), text)
  }
  return [...own, '-o', 'Dir::Etc::sourcelist=-', '-o', `Dir::Etc::sourceparts=${folder}/sources`]
}

if (import.meta.filename === process.argv[1]) await installSystemPrograms()
