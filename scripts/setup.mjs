// Brings a checkout to the state its lock file describes, then compiles. It runs before anything is installed, on
// whatever Node there is, so it imports nothing but Node's own modules.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const stampFile = path.join(root, 'node_modules', '.spillway-stamp')
const installOnly = process.argv.includes('--install-only')

function fail(message) {
  console.error(`\nset-up: ${message}`)
  process.exit(1)
}

function olderThan(wantedMajor, wantedMinor) {
  const [major, minor] = process.versions.node.split('.').map(Number)
  return major < wantedMajor || (major === wantedMajor && minor < wantedMinor)
}

if (olderThan(20, 19)) {
  fail(`Spillway needs Node 20.19 or newer to set itself up, and this is Node ${process.versions.node}.`)
}

// The lock file also fixes the Node that runs everything else, so its hash covers that version.
const stamp = createHash('sha256')
  .update(readFileSync(path.join(root, 'package-lock.json')))
  .update(`${process.platform} ${process.arch}`)
  .digest('hex')

if (!existsSync(stampFile) || readFileSync(stampFile, 'utf8') !== stamp) install()
if (!installOnly) compile()

function install() {
  console.log('set-up: installing what package-lock.json lists (npm ci, only after it changed; up to a minute) ...')
  rmSync(stampFile, { force: true })
  const { status, error } = npm(['ci', '--no-audit', '--no-fund', '--loglevel=error'])
  if (error || status !== 0) {
    const reason = error ? error.message : `npm ci ended with exit code ${status}`
    fail(`${reason}. It needs the npm registry: check the network or proxy, then run the command again.`)
  }
  if (!existsSync(path.join(root, 'node_modules/.bin/node')) && olderThan(22, 13)) {
    fail(`There is no packaged Node for ${process.platform} ${process.arch}; install Node 22.13 or newer.`)
  }
  writeFileSync(stampFile, stamp)
}

function npm(args) {
  const options = { cwd: root, stdio: 'inherit' }
  const { npm_execpath: cli = '', npm_node_execpath: node = process.execPath } = process.env
  // Not the `node` of the PATH: under `npm run` that is the one which `npm ci` is about to replace.
  if (cli.endsWith('npm-cli.js')) return spawnSync(node, [cli, ...args], options)
  return spawnSync('npm', args, { ...options, shell: process.platform === 'win32' })
}

function compile() {
  const tsc = ['node_modules/typescript/bin/tsc', '-b']
  const { status } = spawnSync(process.execPath, tsc, { cwd: root, stdio: 'inherit' })
  if (status !== 0) fail('The sources do not compile; the errors are above.')
}
