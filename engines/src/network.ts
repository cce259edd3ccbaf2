/**
 * A network of its own for programs that shall be cut from each other: a namespace for each, joined by a bridge that
 * this process is on too, so that it reaches all of them whatever is cut.
 *
 * Needs root on a Linux with `ip` and `nft`. Addresses are of 198.18.0.0/15, which no network in use has (RFC 2544).
 * Goes with `remove`, with this process, or, if that was killed, when the next one is made.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'

export interface Network {
  /** Of each place in it. */
  readonly addresses: readonly string[]
  /** The command that runs `program` at a place; it becomes the program, so signals reach that. */
  command(place: number, program: string, args: readonly string[]): readonly [string, readonly string[]]
  /** Drops from now on what `from` sends to `to`, and nothing else. */
  cut(from: number, to: number): void
  /** Undoes all cuts. */
  heal(): void
  /** Takes it down, with the programs that still run in it. */
  remove(): void
}

let reason: string | null | undefined

/** Why networks cannot be made and cut here, or undefined if they can. Finds out by making one. */
export function whyNoNetwork(): string | undefined {
  if (reason === undefined) reason = tryOne()
  return reason ?? undefined
}

function tryOne(): string | null {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'networks can be cut only by root on Linux'
  try {
    const network = createNetwork(1)
    network.cut(0, 0)
    network.remove()
    return null
  } catch (error) {
    return `networks cannot be cut here: ${(error as Error).message.trim().split('\n').at(-1)}`
  }
}

/** Makes a network of `size` places. Throws where `whyNoNetwork` has a reason. */
export function createNetwork(size: number): Network {
  sweep()
  const number = claim()
  const remove = () => {
    process.removeListener('exit', remove)
    takeDown(number)
  }
  process.on('exit', remove)
  const subnet = `198.${18 + (number >> 8)}.${number & 255}`
  const places = Array.from({ length: size }, (_, place) => place)
  const addresses = places.map((place) => `${subnet}.${place + 2}`)
  try {
    ip(`addr add ${subnet}.1/24 dev ${bridge(number)}`, `link set ${bridge(number)} up`)
    for (const place of places) {
      const space = namespace(number, place)
      ip(
        `netns add ${space}`,
        `link add ${outside(number, place)} type veth peer name eth0 netns ${space}`,
        `link set ${outside(number, place)} master ${bridge(number)} up`,
        `-n ${space} addr add ${addresses[place]}/24 dev eth0`,
        `-n ${space} link set eth0 up`,
        `-n ${space} link set lo up`,
      )
      nft(
        space,
        'add table ip spillway',
        'add set ip spillway cut { type ipv4_addr; }',
        'add chain ip spillway sends { type filter hook output priority 0; }',
        'add rule ip spillway sends ip daddr @cut drop',
      )
    }
  } catch (error) {
    remove()
    throw error
  }
  return {
    addresses,
    command: (place, program, args) => ['ip', ['netns', 'exec', namespace(number, place), program, ...args]],
    cut: (from, to) => nft(namespace(number, from), `add element ip spillway cut { ${addresses[to]} }`),
    heal: () => {
      for (const place of places) nft(namespace(number, place), 'flush set ip spillway cut')
    },
    remove,
  }
}

const mostNetworks = 512
const bridge = (number: number) => `spillway${number}`
const outside = (number: number, place: number) => `spillway${number}-${place}`
const namespace = (number: number, place: number) => `spillway${number}-${place}`

/** Takes a number that no other process has: a bridge is made or is there already, nothing between. */
function claim(): number {
  for (let tried = 0; tried < mostNetworks; tried++) {
    const number = (process.pid + tried) % mostNetworks
    if (existsSync(`/sys/class/net/${bridge(number)}`)) continue
    try {
      ip(`link add ${bridge(number)} type bridge`, `link set ${bridge(number)} alias ${process.pid}`)
      return number
    } catch (error) {
      if (!/exists/i.test((error as Error).message)) throw error
    }
  }
  throw new Error(`All ${mostNetworks} networks are taken.`)
}

/** Takes down what killed processes left. */
function sweep(): void {
  for (const name of readdirSync('/sys/class/net')) {
    const number = /^spillway(\d+)$/.exec(name)?.[1]
    if (number === undefined) continue
    const owner = Number(readFileSync(`/sys/class/net/${name}/ifalias`, 'utf8'))
    if (owner > 0 && !existsSync(`/proc/${owner}`)) takeDown(Number(number))
  }
}

function takeDown(number: number): void {
  const spaces = existsSync('/run/netns')
    ? readdirSync('/run/netns').filter((name) => name.startsWith(`${bridge(number)}-`))
    : []
  for (const space of spaces) {
    for (const pid of run('ip', ['netns', 'pids', space]).split('\n').filter(Boolean)) kill(Number(pid))
    // First, for it goes with the namespace only some time after that.
    if (existsSync(`/sys/class/net/${space}`)) run('ip', ['link', 'del', space])
    run('ip', ['netns', 'del', space])
  }
  if (existsSync(`/sys/class/net/${bridge(number)}`)) run('ip', ['link', 'del', bridge(number)])
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended by itself.
  }
}

function ip(...commands: string[]): void {
  for (const command of commands) run('ip', command.split(' '))
}

function nft(space: string, ...commands: string[]): void {
  run('ip', ['netns', 'exec', space, 'nft', commands.join('\n')])
}

function run(program: string, args: readonly string[]): string {
  const PATH = `${process.env.PATH}:/usr/sbin:/sbin`
  return execFileSync(program, args, { encoding: 'utf8', stdio: 'pipe', env: { ...process.env, PATH } })
}
