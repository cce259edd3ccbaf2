import { diskConformance } from './conformance.ts'
import { diskContender } from './contenders.ts'
import { diskScenarios, fill } from './scenarios.ts'

// One process does one thing with one contender: `child.js <JSON>`. Its last line is JSON.
export interface Task {
  readonly task: 'fill' | 'conform' | 'measure'
  readonly contender: string
  readonly scenario: string
  readonly path: string
  readonly filled: string
  readonly events: number
  readonly quick: boolean
}

const { task, contender: name, scenario: id, events, ...place } = JSON.parse(process.argv[2] as string) as Task
const contender = diskContender(name)

if (task === 'fill') {
  const store = await fill(contender, place.path, events)
  await store.close()
  console.log('{}')
} else if (task === 'conform') {
  const cannot = await diskConformance(contender, place.path).catch((error) => error.message)
  console.log(JSON.stringify({ cannot }))
} else {
  const scenario = diskScenarios.find((candidate) => candidate.id === id)
  if (!scenario) throw new Error(`There is no scenario "${id}".`)
  console.log(JSON.stringify(await scenario.measure(contender, place, events)))
}
process.exit()
