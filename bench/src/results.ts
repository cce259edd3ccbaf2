import { readFileSync } from 'node:fs'
import os from 'node:os'
import type { Unit } from './scenario.ts'
import { type Spread, spread } from './stats.ts'

/** Where and when. */
export interface Machine {
  readonly kind: 'machine'
  readonly date: string
  readonly cpu: string
  readonly cores: number
  readonly memory: number
  readonly system: string
  readonly node: string
  readonly packages: Readonly<Record<string, string>>
  readonly rounds: number
  readonly quick: boolean
}

export interface ScenarioRecord {
  readonly kind: 'scenario'
  readonly id: string
  readonly title: string
  readonly unit: Unit
}

/** A contender that does not do what a scenario needs, and why. */
export interface CannotRecord {
  readonly kind: 'cannot'
  readonly scenario: string
  readonly contender: string
  readonly reason: string
}

export interface SampleRecord {
  readonly kind: 'sample'
  readonly round: number
  readonly scenario: string
  readonly contender: string
  readonly role: 'ours' | 'peer' | 'floor'
  readonly value: number
  readonly extra?: Readonly<Record<string, number | string>>
}

/** How busy the machine was when a round ended, this benchmark included: the load average over one minute. */
export interface RoundRecord {
  readonly kind: 'round'
  readonly round: number
  readonly load: number
}

/** A line of a result file. */
export type ResultRecord = Machine | ScenarioRecord | CannotRecord | SampleRecord | RoundRecord

/** The records of one run, ready to be asked. */
export class Results {
  readonly machine: Machine
  readonly scenarios: readonly ScenarioRecord[]
  /** Load averages at the ends of the rounds. */
  readonly load: Spread
  readonly #cannot: readonly CannotRecord[]
  readonly #samples = new Map<string, SampleRecord[]>()

  constructor(records: readonly ResultRecord[]) {
    const machine = records.find((record) => record.kind === 'machine')
    if (!machine) throw new Error('The result file has no line about the machine.')
    this.machine = machine
    this.scenarios = records.filter((record) => record.kind === 'scenario')
    this.load = spread(records.filter((record) => record.kind === 'round').map(({ load }) => load))
    this.#cannot = records.filter((record) => record.kind === 'cannot')
    for (const record of records) {
      if (record.kind !== 'sample') continue
      const key = keyOf(record.scenario, record.contender)
      const known = this.#samples.get(key)
      if (known) known.push(record)
      else this.#samples.set(key, [record])
    }
  }

  cannot(scenario: string): readonly CannotRecord[] {
    return this.#cannot.filter((record) => record.scenario === scenario)
  }

  /** The contenders of a scenario with what they reached, the smallest first. */
  rows(scenario: string): readonly { contender: string; role: SampleRecord['role']; spread: Spread }[] {
    return [...this.#samples.values()]
      .filter(([first]) => first?.scenario === scenario)
      .map((samples) => {
        const { contender, role } = samples[0] as SampleRecord
        return { contender, role, spread: spread(samples.map(({ value }) => value)) }
      })
      .sort((a, b) => a.spread.median - b.spread.median)
  }

  samples(scenario: string, contender: string): readonly SampleRecord[] {
    return this.#samples.get(keyOf(scenario, contender)) ?? []
  }
}

const keyOf = (scenario: string, contender: string): string => `${scenario}\n${contender}`

export function parseResults(text: string): Results {
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  return new Results(lines.map((line) => JSON.parse(line) as ResultRecord))
}

export function describeRound(round: number): RoundRecord {
  return { kind: 'round', round, load: os.loadavg()[0] ?? 0 }
}

export function describeMachine(rounds: number, quick: boolean): Machine {
  const cpus = os.cpus()
  return {
    kind: 'machine',
    date: new Date().toISOString(),
    cpu: cpus[0]?.model ?? 'unknown',
    cores: cpus.length,
    memory: os.totalmem(),
    system: `${os.type()} ${os.release()} ${os.arch()}`,
    node: process.versions.node,
    packages: Object.fromEntries(['spillway', 'rxjs', 'effect', 'mitata'].map((name) => [name, versionOf(name)])),
    rounds,
    quick,
  }
}

function versionOf(name: string): string {
  const file = new URL(`../../node_modules/${name}/package.json`, import.meta.url)
  return JSON.parse(readFileSync(file, 'utf8')).version
}
