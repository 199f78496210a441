/*
 * test_heap.c
 *	  The heap against an oracle that looks at everything.
 */
#include "core/heap.h"
#include "random.h"
#include "tap.h"

#define ELEMENTS 500

static bool no_memory;

static void *
grow(void *old, size_t bytes)
{
	return no_memory ? NULL : realloc(old, bytes);
}

/* The least of those that say that they are in the heap. */
static HeapNode *
least(HeapNode *nodes, int count)
{
	HeapNode *best = NULL;
	int i;

	for (i = 0; i < count; i++)
	{
		HeapNode *node = &nodes[i];

		if (node->index < 0)
			continue;
		if (best == NULL || node->time < best->time ||
			(node->time == best->time && node->id < best->id))
			best = node;
	}
	return best;
}

static bool
is_sound(const Heap *heap)
{
	int i;

	for (i = 0; i < heap->count; i++)
	{
		const HeapNode *node = heap->nodes[i];
		const HeapNode *parent = heap->nodes[(i - 1) / 2];

		if (node->index != i)
			return false;
		if (i > 0 &&
			(node->time < parent->time || (node->time == parent->time && node->id < parent->id)))
			return false;
	}
	return true;
}

static void
random_step(Heap *heap, HeapNode *nodes, int *inside)
{
	int i = (int) random_between(0, ELEMENTS - 1);
	HeapNode *node = &nodes[i];
	/* few different times, so that ids decide often; now and then the extremes */
	int64_t time = random_bits() % 50 == 0 ? (random_bits() % 2 ? INT64_MAX : INT64_MIN)
										   : random_between(-20, 20);

	switch (random_bits() % 4)
	{
		case 0:
		case 1:
			*inside += node->index < 0 ? 1 : 0;
			if (node->index < 0)
				minheap_insert(heap, node, time, i);
			else
				minheap_update(heap, node, time, i);
			break;
		case 2:
			*inside -= node->index < 0 ? 0 : 1;
			minheap_remove(heap, node);
			break;
		default:
			if (minheap_pop(heap) != NULL)
				(*inside)--;
	}
}

static void
test_against_oracle(void)
{
	static HeapNode nodes[ELEMENTS];
	Heap heap;
	int inside = 0;
	int wrong = 0;
	int largest = 0;
	int i;

	minheap_init(&heap, grow);
	for (i = 0; i < ELEMENTS; i++)
		minheap_node_init(&nodes[i]);
	for (i = 0; i < 20000; i++)
	{
		random_step(&heap, nodes, &inside);
		if (heap.count != inside || minheap_peek(&heap) != least(nodes, ELEMENTS) ||
			!is_sound(&heap))
			wrong++;
		largest = heap.count > largest ? heap.count : largest;
	}
	is_int(wrong, 0, "20000 random steps agree with the oracle (up to %d elements)", largest);
	free(heap.nodes);
}

static void
test_sorts(void)
{
	static HeapNode nodes[5000];
	Heap heap;
	HeapNode *node;
	int64_t last = INT64_MIN;
	int wrong = 0;
	int count = 0;
	int i;

	minheap_init(&heap, grow);
	for (i = 0; i < 5000; i++)
	{
		minheap_node_init(&nodes[i]);
		minheap_insert(&heap, &nodes[i], (int64_t) random_bits(), i);
	}
	for (node = minheap_pop(&heap); node != NULL; node = minheap_pop(&heap))
	{
		wrong += node->time < last || node->index != -1;
		last = node->time;
		count++;
	}
	is_int(wrong, 0, "elements come out in order");
	is_int(count, 5000, "all of them");
	free(heap.nodes);
}

static void
test_edges(void)
{
	HeapNode nodes[65];
	Heap heap;
	int i;

	minheap_init(&heap, grow);
	ok(minheap_peek(&heap) == NULL && minheap_pop(&heap) == NULL, "an empty heap has no first");
	minheap_node_init(&nodes[0]);
	minheap_remove(&heap, &nodes[0]);
	is_int(nodes[0].index, -1, "removing what is in no heap does nothing");
	no_memory = true;
	ok(!minheap_insert(&heap, &nodes[0], 1, 1), "no memory for the first");
	is_int(nodes[0].index, -1, "which is in no heap");
	no_memory = false;
	for (i = 0; i < 65; i++)
		minheap_node_init(&nodes[i]);
	for (i = 0; i < 64; i++)
		minheap_update(&heap, &nodes[i], 100 - i, i);
	no_memory = true;
	ok(!minheap_update(&heap, &nodes[64], 0, 64), "no memory to grow");
	ok(heap.count == 64 && is_sound(&heap) && minheap_peek(&heap) == &nodes[63], "nothing changed");
	ok(minheap_update(&heap, &nodes[63], 1000, 63), "moving one needs none");
	no_memory = false;
	ok(minheap_peek(&heap) == &nodes[62] && is_sound(&heap), "the next is first now");
	free(heap.nodes);
}

int
main(void)
{
	random_begin();
	test_edges();
	test_against_oracle();
	test_sorts();
	return done();
}
