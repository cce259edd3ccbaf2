import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Part } from '../part.ts'
import { packageVersion } from '../results.ts'
import type { Measured } from '../scenario.ts'
import type { Task } from './child.ts'
import { diskContender } from './contenders.ts'
import { diskScenarios } from './scenarios.ts'

const child = fileURLToPath(new URL('child.js', import.meta.url))
/** A process that takes longer than this hangs. */
const timeout = 120_000
/** A quick run takes this part of the events. */
const quickly = 20

let folder: string | undefined
let made = 0
const filled = new Map<string, Promise<string>>()

/** Part C: the log in a file, a process per contender, scenario and round. */
export const onDisk: Part = {
  id: 'c',
  title: 'On disk',
  rounds: 5,
  roundSeconds: 120,
  scenarios: diskScenarios,
  versions: async () => ({
    spillway: packageVersion('spillway'),
    SQLite: process.versions.sqlite ?? 'missing',
    'file system': fileSystem(place()),
  }),
  roleOf: async (contender) => diskContender(contender).role,
  question: (_scenario, contender) => contender,
  async ask(scenario, contender) {
    return (await inChild<{ cannot?: string }>({ task: 'conform', scenario, contender })).cannot
  },
  async measure(id, contender, quick) {
    const scenario = diskScenarios.find((candidate) => candidate.id === id)
    const events = Math.ceil((scenario?.events ?? 0) / (quick ? quickly : 1))
    const owner = scenario?.fileOf ?? contender
    const file = events > 0 && !diskContender(owner).inMemory ? await filledBy(owner, events) : ''
    return inChild<Measured>({ task: 'measure', scenario: id, contender, quick, events, filled: file })
  },
}

/** A file with `events` events of a contender, made once: nobody who measures with it adds to it. */
function filledBy(contender: string, events: number): Promise<string> {
  const key = `${contender} ${events}`
  const file =
    filled.get(key) ??
    (async () => {
      const target = newPath()
      await inChild({ task: 'fill', contender, events, path: target })
      return target
    })()
  filled.set(key, file)
  return file
}

async function inChild<Answer>(task: Pick<Task, 'task' | 'contender'> & Partial<Task>): Promise<Answer> {
  const target = task.path ?? newPath()
  const whole: Task = { scenario: '', filled: '', events: 0, quick: false, ...task, path: target }
  const flags = process.env.BENCH_SERVER_FLAGS?.split(' ').filter(Boolean) ?? []
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, child, JSON.stringify(whole)], { timeout })
  if (!task.path) rmSync(path.dirname(target), { recursive: true, force: true })
  const answer = stdout.trim().split('\n').at(-1)
  if (!answer) throw new Error(`${JSON.stringify(whole)}: the process ended without an answer.`)
  return JSON.parse(answer)
}

/** A file to be, in a folder of its own. */
function newPath(): string {
  if (!folder) {
    const own = mkdtempSync(path.join(place(), 'spillway-bench-'))
    process.once('exit', () => rmSync(own, { recursive: true, force: true }))
    folder = own
  }
  const own = path.join(folder, `${++made}`)
  mkdirSync(own)
  return path.join(own, 'events.db')
}

/** Not the folder for temporary files where another is on a disk for sure: that one may be in memory. */
function place(): string {
  return existsSync('/var/tmp') ? '/var/tmp' : os.tmpdir()
}

/** Its kind, where the system tells: the mount that is nearest. */
export function fileSystem(folder: string, mounts: string = readMounts()): string {
  const found = mounts
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, point = '-']) => folder === point || folder.startsWith(point === '/' ? '/' : `${point}/`))
    .sort(([, a = ''], [, b = '']) => a.length - b.length)
    .at(-1)
  return found?.[2] ?? 'unknown'
}

function readMounts(): string {
  return existsSync('/proc/self/mounts') ? readFileSync('/proc/self/mounts', 'utf8') : ''
}
