"""Corpus-sized jobs: affect over video, embeddings of turns, replies for comparison.

`shards` is the bookkeeping and knows nothing of Ray; `pipelines` runs shards on Ray Data; `jobs`
says what each job does with one shard; `made` hands the results to who trains and compares.
"""
